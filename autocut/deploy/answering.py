"""The other side of `FreshProcess`: a process that imports first, answers one question, and ends.

It closes the descriptor `--ready` when it has imported everything. Then it reads a question from stdin: one line of JSON, of which
`report` names the file for the answer. It closes the descriptor `--measured` when it has measured, and needs the machine for itself
no longer. A second line from stdin lets it go on.

Before that question it takes others about the machine's capacity (`capacity_process`): a fork of it answers them, so that it stays
fresh.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocut.deploy.capacity_process import answer_in_fork
from autocut.measure.parent_death import die_with

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

HandBack = Callable[[], None]
"""Called when nothing more is measured."""


def answer(respond: Callable[[Mapping[str, Any], HandBack], DataclassInstance], arguments: Sequence[str] | None = None) -> None:
    """Signal that everything is imported, wait for the question, and write what `respond` returns, complete or not at all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--ready", type=int, required=True, help="descriptor that is closed when everything is imported")
    parser.add_argument("--measured", type=int, required=True, help="descriptor that is closed when nothing more is measured")
    options = parser.parse_args(arguments)
    die_with(options.parent)
    os.close(options.ready)

    def hand_back() -> None:
        os.close(options.measured)
        sys.stdin.readline()

    while line := sys.stdin.readline():  # none: the parent closed the pipe without a question
        question = json.loads(line)
        if "layouts" not in question:
            _write(question, respond(question, hand_back))
            return
        _write(question, answer_in_fork(question))


def _write(question: Mapping[str, Any], found: DataclassInstance) -> None:
    report = Path(question["report"])
    draft = report.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(found)), encoding="utf-8")
    draft.replace(report)
