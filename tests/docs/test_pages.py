"""What the pages show works: every block is run in its order, or marked with the reason why not."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import threading
import urllib.request
from http.server import HTTPServer
from pathlib import Path

import pytest

from autocut.deploy.manifest import read_manifest
from autocut.errors import ExitCode

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "SKILL.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_can_be_followed(reading, scratch, page):
    """In the order of the page, as a reader does it. Searches are dry runs."""
    blocks = reading.blocks_of(page)
    reader = reading.Reader()
    with reading.standing_in(scratch):
        for block in blocks:
            reader.follow(block)


def test_the_server_of_the_page_answers(reading, scratch):
    """A JSON list of images comes in, a JSON list of logits goes out."""
    code = next(block.code for block in reading.blocks_of(ROOT / "docs/deploy.md") if block.title == "serve.py")
    with reading.standing_in(scratch):
        Path("out").symlink_to("studies/digits/bundles/trial-0007")
        names = {"__name__": "serve"}
        exec(code, names)
    names["Predict"].log_message = lambda *_: None
    with HTTPServer(("127.0.0.1", 0), names["Predict"]) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        body = json.dumps([[[[0.0] * 8] * 8]] * 2).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}", body, timeout=60) as answer:
            logits = json.loads(answer.read())
        thread.join()

    assert [len(row) for row in logits] == [10, 10]


def test_the_triton_configuration_fits_the_bundle(reading, finished_study):
    """Names, dtype and shapes without the batch."""
    code = next(block.code for block in reading.blocks_of(ROOT / "docs/deploy.md") if block.language == "protobuf")
    manifest = read_manifest(finished_study / "bundles/trial-0007")
    told = re.findall(r'(?:in|out)put \{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[([\d, ]+)\] \}', code)

    assert told == [
        (tensor.name, tensor.dtype.replace("float", "FP"), ", ".join(map(str, tensor.shape[1:])))
        for tensor in (*manifest.inputs, manifest.output)
    ]


@pytest.mark.slow
def test_the_openvino_program_compiles(reading, tmp_path):
    """Against the headers of the Python package. The one for ONNX Runtime needs headers that no package brings."""
    found = importlib.util.find_spec("openvino")
    if found is None:
        pytest.skip("openvino is not installed")
    code = next(block.code for block in reading.blocks_of(ROOT / "docs/deploy.md") if block.title == "run_openvino.cpp")
    (tmp_path / "run.cpp").write_text(code)
    include = Path(found.submodule_search_locations[0]) / "include"

    subprocess.run(["g++", "-std=c++17", "-fsyntax-only", f"-I{include}", str(tmp_path / "run.cpp")], check=True)


def test_the_page_has_every_exit_code():
    """One table, and the numbers of the program."""
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/json.md").read_text(), re.MULTILINE)

    assert [int(row) for row in rows] == list(ExitCode)


def test_the_site_builds_without_a_warning(tmp_path):
    """A page that no menu has, or a link to nowhere, is an error."""
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install 'autocut[docs]'")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-q",
        "-f",
        str(ROOT / "mkdocs.yml"),
        "-d",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
