"""Kill a search at many seeded moments over all its phases, and look whether anything was lost.

python studies/kills/run.py --kills 50

A run may be done in pieces, each with the same seed: `--first 0 --count 10`, then `--first 10 --count 10`.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from killing import PHASES, moments, victim


def main() -> int:
    """Print a line for each study, and how many kills were survived; return 1 if one was not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="leave out so many of them: an earlier piece has made them")
    parser.add_argument("--count", type=int, default=None, help="make so many of them in this piece; default: all that are left")
    parser.add_argument("--per-study", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no kill later than that; each study still ends")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES), help="kill in these alone")
    parser.add_argument("--budget", type=int, default=600, help="seconds of each study: enough for its kills")
    parser.add_argument("--folder", type=Path, default=None, help="where the studies stay; default: a temporary folder")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the search that runs, too
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    todo = moments(asked.kills, asked.seed, asked.phases)[asked.first :][: asked.count]
    began = time.monotonic()
    done, phases = Counter[str](), Counter[str]()
    broken = 0
    for first in range(0, len(todo), asked.per_study):
        with victim(folder / str(asked.first + first), asked.budget) as study:
            for moment in todo[first : first + asked.per_study]:
                if time.monotonic() - began > asked.seconds:
                    break
                known = len(study.faults)
                study.kill(moment)
                broken += len(study.faults) > known
            known = len(study.faults)
            study.finish()
            broken += len(study.faults) > known
        done += study.kills
        phases += study.phases
        print(f"study from kill {asked.first + first} on: {study.kills.total()} kills, {len(study.faults)} faults", flush=True)
        for fault in study.faults:
            print(f"  {fault}", flush=True)
    print(", ".join(f"{count} x {phase}" for phase, count in sorted(phases.items())))
    kinds = ", ".join(f"{count} x {target}" for target, count in sorted(done.items()))
    print(f"{done.total() - broken} of {done.total()} kills survived ({kinds}); {folder}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
