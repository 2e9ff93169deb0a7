"""Search among methods that fail in sixteen ways, and print what the study says of each.

python studies/faults/run.py --budget 6m
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from injecting import search

from autocut.budget import parse_duration


def main() -> int:
    """Print a line for each kind of fault; return 1 if one was recorded wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="6m")
    parser.add_argument("--folder", type=Path, default=None, help="where the study stays; default: a temporary folder")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    outcome = search(folder, int(parse_duration(asked.budget)))
    for kind, reason in outcome.recorded.items():
        print(f"{kind}: {reason.partition(chr(10))[0][:160]}")
    for fault in outcome.wrong:
        print(f"WRONG: {fault}")
    print(f"{len(outcome.recorded)} kinds recorded, {len(outcome.wrong)} wrong; {folder}")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
