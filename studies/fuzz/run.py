"""Hand hostile inputs to autocut until each target has had its share, and list every fault once.

python studies/fuzz/run.py studies/digits --inputs 10000
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from hostile_runs import FaultFound
from hostile_targets import TARGETS, home, quick
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_PATIENCE_S = 20.0
"""An input that takes longer hangs: the slowest verb takes a second."""


def main() -> int:
    """Fuzz, and return how many kinds of fault were found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a finished study with a bundle")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _tell_hang)
    faults: dict[str, str] = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="autocut-fuzzed-") as folder, quick():
        study = Path(shutil.copytree(options.study, Path(folder) / "study", ignore=shutil.ignore_patterns("stages", "artifacts")))
        with contextlib.closing(sqlite3.connect(study / "study.db")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file alone is then the study
        bundle = min(path.parent for path in study.glob("bundles/*/manifest.json"))
        for name in options.targets:
            tried, found = fuzz(name, study, bundle, options.inputs // len(options.targets), options.seed)
            print(f"{name}: {tried} inputs, {len(found)} kinds of fault, {time.monotonic() - started:.0f} s so far", flush=True)
            for kind, (count, text) in found.items():
                print(f"  {count} x {kind}", flush=True)
                faults.setdefault(f"{name}: {kind}", text)
    for text in faults.values():
        print(f"\n{'-' * 100}\n{text}")
    return min(len(faults), 100)


def fuzz(name: str, study: Path, bundle: Path, inputs: int, start: int) -> tuple[int, dict[str, tuple[int, str]]]:
    """Run one target; return the number of inputs, and the faults by kind: how often, and the shortest text."""
    counts: Counter[str] = Counter()
    shortest: dict[str, str] = {}
    tried = 0

    @seed(start)
    @settings(max_examples=inputs, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.data())
    def hand_in(data: st.DataObject) -> None:
        nonlocal tried
        tried += 1
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE_S)
        try:
            with home(study, bundle) as at:
                TARGETS[name](data, at)
        except FaultFound as fault:
            counts[fault.kind] += 1
            shortest[fault.kind] = min(shortest.get(fault.kind, str(fault)), str(fault), key=len)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    hand_in()
    return tried, {kind: (count, shortest[kind]) for kind, count in counts.items()}


def _tell_hang(_number: int, frame: FrameType | None) -> None:
    raise FaultFound(f"no end within {_PATIENCE_S:g} s at {frame.f_code.co_filename if frame else '?'}", [], "")


if __name__ == "__main__":
    sys.exit(main())
