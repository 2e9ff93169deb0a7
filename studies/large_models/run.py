"""What a search of minutes leaves of models of 25 to 124 million weights: bundles, when the first one came, and the best speed-up.

python studies/large_models/run.py --budget 6m --out /tmp/large_models
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

import autocut
from autocut.measure.processor import this_host

MODELS = ("bert_base", "resnet50", "gpt2")
_VERIFIED = re.compile(r"\[(?P<at>[\dhms]+) of [\dhms]+\] bundle: (?P<recipe>.*): verified")
_LOOK_S = 0.5


@dataclass(frozen=True)
class Left:
    """What one search has left behind."""

    bundles: int
    first_at: str
    best: str
    least_free_gb: float
    accounted: float

    def row(self, model: str) -> str:
        """A row of the table."""
        return f"| {model} | {self.bundles} | {self.first_at} | {self.best} | {self.least_free_gb:.1f} GB | {self.accounted:.1%} |"


def searched(model: str, budget: str, out: Path) -> Left:
    """Search for cheaper forms of `model` with the command line, and read what it says and leaves."""
    task = Path(__file__).with_name(f"{model}.py")
    command = [
        sys.executable,
        "-m",
        "autocut",
        "search",
        str(task),
        "--space",
        "deploy-only",
        "--budget",
        budget,
        "--out",
        str(out),
    ]
    free: list[float] = []
    began = time.time()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        threading.Thread(target=_watch_memory, args=(process, free), daemon=True).start()
        lines = []
        for line in process.stderr or ():
            print(f"  {line.rstrip()}", file=sys.stderr)
            lines.append(line)
    took = time.time() - began
    found = [match for line in lines if (match := _VERIFIED.search(line))]
    return Left(len(found), found[0]["at"] if found else "none", _best(out), min(free, default=0.0) / 1e9, _accounted(out, took))


def _watch_memory(process: subprocess.Popen[str], free: list[float]) -> None:
    while process.poll() is None:
        free.append(psutil.virtual_memory().available)
        time.sleep(_LOOK_S)


def _best(out: Path) -> str:
    """The largest speed-up at the first serving batch size among the verified points, by the final timing."""
    verified = [point for point in autocut.open_study(out).points() if point.bundle and point.final]
    speedups = {point.recipe: point.final.measurement.cost.latencies[0].speedup.value for point in verified}
    best = max(speedups, key=lambda recipe: speedups[recipe], default=None)
    return "none" if best is None else f"{speedups[best]:.1f}x, {best.describe()}"


def _accounted(out: Path, seconds: float) -> float:
    """The share of the command's seconds that rows of the ledger name; what Python's own start takes is in none."""
    return sum(autocut.open_study(out).ledger()["by_category"].values()) / seconds


def main() -> None:
    """Search for each model, one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="6m")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = [searched(model, options.budget, options.out / f"{model}-{options.budget}").row(model) for model in options.models]
    host = this_host()
    print(f"budget {options.budget}, {host.name}, {host.cores} cores")
    print("| model | verified bundles | first after | best at the first batch size | least free memory | ledger |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
