"""Counts what workers ask of the shared folder: why a bucket cannot stand for it.

python studies/nodes/file_operations.py

A worker makes the untouched model of `studies/kills`, then a recipe that trains, in two lowerings, then finds all of it in the
cache.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from autocut.execution.worker import run_job
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.search.jobs import Event, Job, JobKind, Setting

TASK = Path(__file__).parents[1] / "kills" / "task.py"
TRAINED = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 2, "train.lr_scale": 1.0})
JOBS = (
    (JobKind.BASELINE, (Recipe(),)),
    (JobKind.MEASURE, (TRAINED, TRAINED.with_lowering("fp32", "onnxruntime"))),
    (JobKind.MEASURE, (TRAINED, TRAINED.with_lowering("fp32", "onnxruntime"))),
)
_EVENTS = ("open", "os.rename", "os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.remove", "os.utime")


def main() -> None:
    """Print a line for each job: operations by kind."""
    counts: Counter[str] = Counter()

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and arguments and "/stages/" in str(arguments[0]):
            # A stage's lock is taken as soon as its file is open.
            counts["lock" if "/stages/locks/" in str(arguments[0]) else event.removeprefix("os.")] += 1

    sys.addaudithook(count)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(str(TASK), folder, 0, 1, 10**9, Price("of no matter", 0.1, "today"), "autocut search")
        for number, (kind, recipes) in enumerate(JOBS, start=1):
            counts.clear()
            events: list[Event] = []
            run_job(Job(number, kind, recipes, time.time() + 300, "counting"), setting, events.append)
            told = ", ".join(f"{times} {name}" for name, times in counts.most_common())
            print(f"{kind} of {len(recipes)}: {counts.total()} operations: {told}", flush=True)


if __name__ == "__main__":
    main()
