"""Runs a command line of autocut in this process, and says what a user would call a fault of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

from autocut import cli

_MOST_CHARACTERS, _LONGEST_LINE = 20_000, 1_500
_BUG = re.compile(r'File ".*?([^/"]+/[^/"]+)", line (\d+)')


class FaultFound(Exception):  # noqa: N818  # it is a finding about autocut, no error of the fuzzer
    """A command line ended in a way in which none may end. `kind` is the same for inputs that show the same fault."""

    def __init__(self, kind: str, words: Sequence[str], told: str) -> None:
        super().__init__(f"{kind}\n  autocut {' '.join(map(repr, words))}\n{told[-3000:]}")
        self.kind = kind


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    printed: str
    told: str


def run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
    """Run ``autocut WORDS`` in this process.

    Raises:
        FaultFound: A traceback, an exit code that no bad input may have, an error without words, or control characters in it.
    """
    with _streams() as (stdout, stderr), mock.patch.dict(os.environ, environment or {}):
        try:
            code = cli.main(list(words))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise FaultFound(f"{type(error).__name__} left main", words, repr(error)) from error
        finally:
            stdout.flush()
            stderr.flush()
        ended = Ended(code, stdout.buffer.getvalue().decode(), stderr.buffer.getvalue().decode())  # type: ignore[attr-defined]
    _judge(words, ended)
    return ended


def _judge(words: Sequence[str], ended: Ended) -> None:
    if ended.code not in (0, 1, 2) or "Traceback" in ended.told:
        place = _BUG.findall(ended.told)[-1:]
        last = next((line for line in reversed(ended.told.splitlines()) if line.startswith("error:")), "").split(":")
        raise FaultFound(f"exit {ended.code}:{':'.join(last[2:3])} at {place}", words, ended.told)
    has_words = re.match(r"(.*\n)*error: \S", ended.told) or "Usage:" in ended.told or '"faults": [\n' in ended.printed
    if ended.code == 2 and not has_words:
        raise FaultFound("an error without words", words, ended.told)
    if raw := re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", ended.told):
        raise FaultFound(f"raw {raw[0]!r} on the terminal", words, ended.told)
    if len(ended.told) > _MOST_CHARACTERS or max(map(len, ended.told.splitlines()), default=0) > _LONGEST_LINE:
        raise FaultFound("an endless message", words, ended.told[:2000])
    if "--json" in words and ended.printed:
        _judge_document(words, ended)


def _judge_document(words: Sequence[str], ended: Ended) -> None:
    try:
        document = json.loads(ended.printed)
    except ValueError as error:
        raise FaultFound("stdout is no JSON document", words, f"{error}: {ended.printed[:2000]}") from error
    if ended.code == 2 and "error" in document and not document["error"]["message"]:
        raise FaultFound("a document without a message", words, ended.printed)


@contextlib.contextmanager
def _streams() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    """Replace stdout and stderr by ones that treat characters as the real ones do."""
    stdout = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
    stderr = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with mock.patch.object(sys, "stdout", stdout), mock.patch.object(sys, "stderr", stderr):
        yield stdout, stderr
