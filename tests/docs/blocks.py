"""Takes the fenced blocks out of a page, and runs them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from autocut import cli
from autocut.schemas import schema

_BLOCK = re.compile(
    r'(?:^<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
_FENCE = re.compile(r"^```\w", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block. `mark` says why it is not run; a block with a `title` is a file."""

    language: str
    title: str | None
    mark: str | None
    code: str


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = [Block(at["language"], at["title"], at["mark"], at["code"]) for at in _BLOCK.finditer(text)]
    assert len(found) == len(_FENCE.findall(text)), f"{page.name} has a block that the test does not see"
    return found


class Reader:
    """Does in the current folder what a reader of one page does. `names` are the names of the page's Python."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "page"}

    def follow(self, block: Block) -> None:
        """Write the file, or run the commands or the code; what is marked is only checked for its form."""
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.code, encoding="utf-8")
        match block.language:
            case "python":
                compiled = compile(block.code, block.title or "page", "exec")
                if block.title is None and block.mark is None:
                    exec(compiled, self.names)
            case "sh" if block.mark is not None:
                subprocess.run(["bash", "-n", "-c", block.code], check=True)
            case "sh":
                for line in block.code.splitlines():
                    _run(shlex.split(line, comments=True))
            case "toml":
                tomllib.loads(block.code)
            case "json":
                jsonschema.validate(json.loads(block.code), schema("error"))
            case "cpp" | "dockerfile" | "protobuf":
                assert block.title, "a file has a name"
            case other:
                raise AssertionError(f"the test does not know what to do with {other}")


_looked_at: set[tuple[str, ...]] = set()
"""Dry runs of the same task, which take seconds, are done once."""


def _run(words: list[str]) -> None:
    """Run a command line. A search is a dry run: tests/api runs a whole one."""
    if words[:1] == ["autocut"]:
        dry = ["--dry-run"] if words[1] == "search" and "--dry-run" not in words else []
        once = (*sorted({*words, *dry}), Path("task.py").read_text(encoding="utf-8"))
        if words[1] != "search" or once not in _looked_at:
            assert cli.main([*words[1:], *dry]) == 0, shlex.join(words)
            _looked_at.add(once)
        return
    command = [sys.executable, *words[1:]] if words[:1] == ["python"] else words
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})


@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """Make `folder` the current one; modules of its files are forgotten afterwards."""
    before, known = list(sys.path), set(sys.modules)
    with contextlib.chdir(folder):
        try:
            yield
        finally:
            sys.path[:] = before
            for name in set(sys.modules) - known:
                if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                    del sys.modules[name]
