"""How often is a model told apart from itself? Rounds of calls are recorded in many fresh processes, and judged as many runs.

    python studies/repeatability/false_alarms.py record studies/digits/bundles/trial-0028 --to runs/rounds.jsonl --seconds 100
    python studies/repeatability/false_alarms.py judge runs/rounds.jsonl

`record` times 20 calls of the bundle against 20 calls of a second copy ("same") and against 21 ("5% more"), in a new process for
each line of the file. `judge` cuts the rounds into runs of 64, as a comparison has them, and takes each run's interval by the rule
of `measure_latency`. It then tells how far processes differ by more than their runs do, and draws many new runs: a process at
random, and 64 of its rounds in blocks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure import in_fresh_process, repeated
from numpy.typing import NDArray

import autocut
from autocut.measure.allocator import keep_memory
from autocut.measure.latency import _intervals, beyond_one_run
from autocut.measure.turns import reference_workload, time_interleaved
from autocut.measurement import Interval
from autocut.task.loading import load_task

Times = NDArray[np.float64]
_CALLS, _RUN, _WARM, _BLOCK = 20, 64, 10, 8
_PAIRS = {"same": (_CALLS, 4 * _RUN), "5% more": (_CALLS + 1, _RUN)}
_DRAWS = 2000


def rounds_of(bundle: str) -> dict[str, dict[str, list[float]]]:
    """Time all pairs in this process; return the milliseconds of each round by pair and side."""
    torch.set_num_threads(1)
    keep_memory()
    model, again = autocut.load(bundle).predict, autocut.load(bundle).predict
    task = load_task(None)
    inputs, _ = next(iter(task.loader(task.validation_data, 32)))
    rng, found = np.random.default_rng(os.getpid()), {}
    twenty = repeated(again, _CALLS)
    for name in map(str, rng.permutation(list(_PAIRS))):
        calls, rounds = _PAIRS[name]
        candidate = repeated(model, calls)
        turns = {
            "candidate": lambda one=candidate: one(inputs),
            "baseline": lambda: twenty(inputs),
            "reference": reference_workload(),
        }
        times = time_interleaved(turns, _WARM + rounds, rng, warm_s=0.001)
        found[name] = {side: [round(ms, 5) for ms in times[side][_WARM:]] for side in ("candidate", "baseline")}
    return found


def record(bundle: str, to: Path, seconds: float) -> None:
    """Append a line for each process until `seconds` have passed."""
    to.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        line = in_fresh_process(rounds_of, bundle)
        with to.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def runs_of(line: dict[str, dict[str, list[float]]], name: str) -> list[Times]:
    """Return the runs of one process: candidate and baseline, `_RUN` rounds each."""
    times = np.array([line[name]["candidate"], line[name]["baseline"]])
    return [times[:, first : first + _RUN] for first in range(0, times.shape[1], _RUN)]


def ratio_of(run: Times, rng: np.random.Generator) -> Interval:
    """Return baseline / candidate with the interval of this run alone."""
    return _intervals(run[0], run[1], rng)[1]


def is_apart(ratio: Interval) -> bool:
    """Whether the interval does not hold 1."""
    return not ratio.low <= 1 <= ratio.high


def drawn(run: Times, rng: np.random.Generator) -> Times:
    """Draw a new run of `_RUN` rounds from all rounds of a process, in blocks of neighbours."""
    starts = rng.integers(0, run.shape[1], _RUN // _BLOCK)
    return run[:, ((starts[:, None] + np.arange(_BLOCK)) % run.shape[1]).ravel()]


def told(name: str, what: str, ratios: Sequence[Interval]) -> None:
    """Print how many of `ratios` are told apart, by one run's interval and by the rule."""
    alone, by_rule = (sum(map(is_apart, each)) for each in (ratios, map(beyond_one_run, ratios)))
    count = len(ratios)
    print(f"{name:<8} {what:<22} told apart: by its run alone {alone / count:6.1%}, by the rule {by_rule / count:6.1%} of {count}")


def judge(file: Path, seed: int = 0) -> None:
    """Print the table."""
    rng = np.random.default_rng(seed)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    print(f"{len(lines)} processes")
    for name in _PAIRS:
        told(name, "recorded runs", [ratio_of(run, rng) for line in lines for run in runs_of(line, name)])
    whole = [np.hstack(runs_of(line, "same")) for line in lines]
    draws = [drawn(whole[process], rng) for process in rng.integers(0, len(whole), _DRAWS)]
    told("same", "drawn runs", [ratio_of(run, rng) for run in draws])
    logs = np.array([[math.log(np.median(run[1]) / np.median(run[0])) for run in runs_of(line, "same")] for line in lines])
    within = float(logs.var(axis=1, ddof=1).mean())
    between = max(0.0, float(logs.mean(axis=1).var(ddof=1)) - within / logs.shape[1])
    print(
        f"a run's ratio differs by {within**0.5:.2%} within a process, and by {between**0.5:.2%} between them (standard deviations)"
    )
    print(f"half the 95% interval of what differs between processes: {1.96 * between**0.5:.2%}")
    print(f"largest difference of a run from 1: {np.abs(logs).max():.1%}; of a process: {np.abs(logs.mean(axis=1)).max():.1%}")


def main() -> None:
    """Record, or judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("bundle")
    recording.add_argument("--to", type=Path, required=True)
    recording.add_argument("--seconds", type=float, default=100.0)
    verbs.add_parser("judge").add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "record":
        record(arguments.bundle, arguments.to, arguments.seconds)
    else:
        judge(arguments.file)


if __name__ == "__main__":
    main()
