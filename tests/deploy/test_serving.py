"""The HTTP server and the Dockerfile of a bundle: their steps run here without docker."""

import contextlib
import importlib.metadata
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from autocut import load
from autocut.deploy import serving
from autocut.deploy.bundle import Claims, write_bundle
from autocut.deploy.examples import collect_examples
from autocut.deploy.http_server import Service, make_handler, make_server
from autocut.deploy.manifest import read_manifest
from autocut.deploy.serving import DOCKERFILE
from autocut.measurement import Accuracy, Capacity, Cost, Interval, Latency, Layout, Measurement
from autocut.recipe import Recipe
from autocut.stages import lowering


def steps_of(bundle):
    """(word, rest) of every instruction of the bundle's Dockerfile."""
    lines = [line for line in (bundle / DOCKERFILE).read_text().splitlines() if not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in lines]


@contextlib.contextmanager
def container(bundle, image):
    """Do what docker would do in the folder `image`: copy, and run the command in it, on a free port; give the address."""
    image.mkdir()
    for word, rest in steps_of(bundle):
        if word == "COPY":
            source, to = rest.split()
            copy = shutil.copytree if (bundle / source).is_dir() else shutil.copy
            copy(bundle / source, image / to)
    words = json.loads(dict(steps_of(bundle))["CMD"])
    command = [sys.executable, *words[1:-3], "127.0.0.1", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(command, cwd=image, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        try:
            yield f"http://127.0.0.1:{run.stdout.readline().split()[-1]}"
        finally:
            run.kill()


def ask(address, body=None):
    """(status, document) of a GET, or of a POST with this JSON."""
    request = urllib.request.Request(address, None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


@pytest.mark.parametrize(("dtype", "mode"), [("fp32", "eager"), ("fp32", "onnxruntime"), ("int8_dynamic", "openvino")])
def test_the_steps_of_the_dockerfile_serve_the_model(new_bundle, tmp_path, dtype, mode):
    """Without autocut, what the server answers is what the bundle gives."""
    bundle = new_bundle(dtype=dtype, mode=mode)
    inputs = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    expected = load(bundle)(inputs)

    with container(bundle, tmp_path / "image") as address:
        assert ask(f"{address}/health") == (200, {"status": "ok"})
        status, document = ask(f"{address}/predict", {"inputs": inputs.tolist()})

    assert status == 200
    torch.testing.assert_close(torch.tensor(document["output"]), expected)


def test_the_image_gets_the_packages_of_the_runtime_and_no_data(new_bundle):
    """Versions are those that the bundle was made with; the examples of the test split stay outside."""
    bundle = new_bundle(mode="onnxruntime")
    install = next(rest for word, rest in steps_of(bundle) if word == "RUN")
    packages = dict(word.split("==") for word in shlex.split(install) if "==" in word)

    assert set(packages) == {"numpy", "onnxruntime"}
    assert packages["numpy"] == importlib.metadata.version("numpy")
    assert not any(word == "COPY" and ("examples" in rest or rest.startswith(". ")) for word, rest in steps_of(bundle))


def test_the_server_and_load_keep_memory_as_the_timing_did(made, monkeypatch):
    """Otherwise each call of large activations gets fresh pages from the kernel. A caller of `load` may decline."""
    asked = []
    script = {"__name__": "serve"}
    exec(compile((made / "serve.py").read_text(), "serve.py", "exec"), script)
    script["keep_memory"] = lambda: asked.append("server")
    monkeypatch.chdir(made)
    script["load"]()
    monkeypatch.setattr("autocut.measure.allocator.keep_memory", lambda: asked.append("load"))
    load(made)
    load(made, keep_memory=False)

    assert asked == ["server", "load"]


def test_a_server_of_torch_needs_torch(made):
    """The graph is torch's own format. A local version such as 2.13.0+cpu is known to no index."""
    install = next(rest for word, rest in steps_of(made) if word == "RUN")

    assert f" torch=={importlib.metadata.version('torch').partition('+')[0]}" in install


@pytest.mark.parametrize("lines", ["runtime --model {file}", "print('no input is used')", "print({inputs})"])
def test_code_that_cannot_be_called_again_gives_no_server(made, monkeypatch, lines):
    """A plug-in's README may show a command instead. The bundle then says that it has no server."""
    manifest = read_manifest(made)
    monkeypatch.setattr(
        serving,
        "runtime_lines",
        lambda model, manifest, tensors, arrays, threads: lines.format(file="model.bin", inputs=", ".join(arrays)),
    )

    assert serving.serving_files(made / "model", manifest) == {}


def twice(arrays):
    """Double the only input."""
    return 2 * arrays[0]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("no json", "Expecting value"),
        ("[]", '"inputs"'),
        ('{"inputs": {"y": [[1, 2]]}}', "inputs must be x, got y"),
        ('{"inputs": [[1, 2, 3]]}', r"x must have the shape \[n, 2\], n the batch, got \[1, 3\]"),
        ('{"inputs": [1, 2]}', "x must have the shape"),
        ('{"inputs": []}', "x must be nested lists of int64 numbers"),
        ('{"inputs": [[1], [2, 3]]}', "equally long"),
        ('{"inputs": [["a", "b"]]}', "x must be nested lists of int64 numbers"),
        ('{"inputs": [[1.5, 2]]}', "x must be nested lists of int64 numbers"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(body, told):
    """Machine code checks nothing, so the server does."""
    service = Service(twice, {"x": ("int64", (None, 2))}, None)

    with pytest.raises((ValueError, TypeError), match=told):
        service.answer(body.encode())


def test_a_free_size_keeps_its_limits():
    """Compiled code was made for lengths between these."""
    service = Service(twice, {"x": ("float32", (None, (2, 3)))}, None)

    assert service.answer(b'{"inputs": [[1, 2, 3]]}') == {"output": [[2.0, 4.0, 6.0]]}
    with pytest.raises(ValueError, match=r"shape \[n, 2 to 3\]"):
        service.answer(b'{"inputs": [[1, 2, 3, 4]]}')


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_compiled_code_gets_the_only_batch_that_it_takes(count):
    """Requests are cut and padded, and the padding is not answered."""

    def fixed(arrays):
        assert arrays[0].shape == (2, 1)
        return twice(arrays)

    service = Service(fixed, {"x": ("float32", (None, 1))}, 2)
    given = np.arange(count, dtype=float)[:, None]

    assert service.answer(json.dumps({"inputs": given.tolist()}).encode()) == {"output": (2 * given).tolist()}


def test_an_error_ends_one_request_and_not_the_server():
    """The next client is served."""

    def breaks(arrays):
        if arrays[0].sum() < 0:
            raise RuntimeError("the runtime does not like it")
        return twice(arrays)

    server = make_server(Service(breaks, {"x": ("float32", (None, 1))}, None), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        assert ask(f"{address}/predict", {"inputs": [[-1]]}) == (500, {"error": "RuntimeError: the runtime does not like it"})
        assert ask(f"{address}/predict", {"inputs": "x"})[0] == 400
        assert ask(f"{address}/elsewhere", {"inputs": [[1]]})[0] == ask(f"{address}/elsewhere")[0] == 404
        assert ask(f"{address}/predict", {"inputs": [[1]]}) == (200, {"output": [[2.0]]})
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("length", ["²", "9" * 5000, "-1", "1_0", " ", ""])
def test_a_length_that_is_no_number_is_refused(length):
    """Python takes a superscript two for a digit, and refuses to read thousands of them: both ended the answer."""
    server = make_server(Service(twice, {"x": ("float32", (None, 1))}, None), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with socket.create_connection(server.server_address, timeout=60) as client:
            client.sendall(f"POST /predict HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode("latin-1"))
            answer = client.makefile("rb").read()
    finally:
        server.shutdown()
        server.server_close()

    assert answer.split()[1] == b"413"
    assert b"Content-Length must be a number" in answer


def test_a_client_that_has_gone_is_no_error():
    """One that loses its patience would fill the log with tracebacks."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(b'POST /predict HTTP/1.1\r\nContent-Length: 19\r\n\r\n{"inputs": [[1.0]]}')
        ours.close()
        make_handler(Service(twice, {"x": ("float32", (None, 1))}, None))(theirs, ("127.0.0.1", 1), None)


class Convolution(nn.Module):
    """Inductor compiles it for each batch size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        """Filtered image."""
        return self.convolution(x.reshape(-1, 1, 4, 8)).flatten(1)


@pytest.mark.slow
def test_a_model_compiled_for_some_batch_sizes_serves_any_number(tmp_path):
    """The bundle has a package for 2 and one for 16; five examples are three calls."""
    inputs = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    model = Convolution().eval()
    artifact, bundle = tmp_path / "artifact", tmp_path / "bundle"
    artifact.mkdir()
    lowering.lower(model, "fp32", "aot_inductor", [torch.zeros(16, 32)], artifact, batch_sizes=(16, 2))
    predict = lowering.load(artifact, "aot_inductor", 1)
    examples = collect_examples(predict, [(torch.zeros(16, 32), torch.zeros(16, dtype=torch.long))])
    latency = Latency(2, 64, Interval(1, 1, 1), None, None, 1.0, Interval(1, 1, 1), 1.0)
    measurement = Measurement(Accuracy("test", 16, Interval(0, 0, 1)), Cost((latency,), 1, 1, 1, 1.0, "m"))
    recipe = Recipe({"quantize.dtype": "fp32", "compile.mode": "aot_inductor"})
    write_bundle(artifact, bundle, Claims("conv", recipe, measurement, {}, None, "accuracy", "autocut export", 0), examples)

    with container(bundle, tmp_path / "image") as address:
        status, document = ask(f"{address}/predict", {"inputs": inputs.tolist()})

    assert status == 200
    torch.testing.assert_close(torch.tensor(document["output"]), model(inputs), rtol=1e-4, atol=1e-4)


TWO_COPIES = Capacity(
    16, 2, (Layout(2, 1, Interval(100.0, 99.0, 101.0), 1000.0),), (Layout(1, 1, Interval(10.0, 9.0, 11.0), 1000.0),)
)


def test_a_server_of_copies_answers_from_all_of_them(made, tmp_path, claim):
    """Two processes take requests from one port, and answer as the bundle does; when one dies, the service ends."""
    bundle = shutil.copytree(made, tmp_path / "bundle")
    manifest = claim.with_capacity(read_manifest(made), TWO_COPIES)
    for name, text in serving.serving_files(made / "model", manifest).items():
        (bundle / name).write_text(text)
    inputs = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    expected = load(made)(inputs)
    found = []

    with container(bundle, tmp_path / "image") as address:
        callers = [
            threading.Thread(target=lambda: found.append(ask(f"{address}/predict", {"inputs": inputs.tolist()}))) for _ in range(8)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert ask(f"{address}/health") == (200, {"status": "ok"})

    assert [status for status, _ in found] == [200] * 8
    for _, document in found:
        torch.testing.assert_close(torch.tensor(document["output"]), expected)


def test_a_service_of_copies_ends_when_one_of_them_dies(made, tmp_path, claim):
    """Fewer copies are not what was asked for: what has started the service sees that it ended."""
    manifest = claim.with_capacity(read_manifest(made), TWO_COPIES)
    (tmp_path / "serve.py").write_text(serving.serving_files(made / "model", manifest)["serve.py"])
    shutil.copytree(made / "model", tmp_path / "model")
    command = [sys.executable, "serve.py", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout.readline().startswith("serving on port")
        first, second = psutil.Process(service.pid).children()
        first.kill()
        service.wait(30)
        psutil.wait_procs([second], timeout=30)

    assert not second.is_running()
