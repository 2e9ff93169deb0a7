"""Measure every method of every axis on every family of models, one change at a time from the untouched model.

    AUTOCUT_DATA=/data python studies/method_matrix/matrix.py
    AUTOCUT_DATA=/data python studies/method_matrix/matrix.py --families adult housing --axes lowering --budget 10m

Rows go to OUT/rows.csv as they are measured, and a row that is there is not measured again. At the end OUT/matrix.md has them as
tables, and OUT/matrix.png as a heat map where matplotlib is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from changes import AXES, Change, changes_of
from families import FAMILIES, Family
from measuring import FamilyBench, why_skipped
from row_tables import to_markdown, to_words
from rows import Row, RowFile

from autocut.budget import format_duration, parse_duration
from autocut.errors import AutocutError, DeadlineError
from autocut.execution.worker import keep_libraries_quiet

HERE = Path(__file__).parent


def _counted(left: Sequence[Change]) -> str:
    first = f"{left[0].axis} {left[0].method}"
    return first if len(left) == 1 else f"{first} and {len(left) - 1} more"


@dataclass
class Run:
    """One run of the command: where rows go, until when, and what it had to leave out."""

    rows: RowFile
    stages: Path
    deadline: float
    is_timing: bool = True
    missing: list[str] = field(default_factory=list)

    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return time.monotonic() >= self.deadline

    def measure_family(self, family: Family, changes: Sequence[Change]) -> None:
        """Measure the changes of one family that have no row yet."""
        wanted = [change for change in changes if self.key(family, change) not in self.rows.rows]
        if not wanted:
            return
        try:
            bench = FamilyBench(family, self.stages / family.name, self.is_over)
        except AutocutError as error:
            self.missing.append(f"{family.name}: skipped, {why_skipped(error)}")
            return
        for number, change in enumerate(wanted):
            try:
                self._measure(bench, change)
            except DeadlineError:
                self.missing.append(f"{family.name}: the budget was spent before {_counted(wanted[number:])}")
                return

    def _measure(self, bench: FamilyBench, change: Change) -> None:
        if self.is_over():
            raise DeadlineError("the budget is spent")
        began = time.monotonic()
        row = bench.measure(change) if self.is_timing else bench.prepare(change)
        took = format_duration(time.monotonic() - began)
        if row is not None:
            self.rows.add(row)
        said = "ready to be timed" if row is None else to_words(row)
        print(f"{bench.family.name}: {change.axis} {change.method}: {said} ({took})", flush=True)

    @staticmethod
    def key(family: Family, change: Change) -> tuple[str, ...]:
        """Return the key of the row of a change."""
        return Row(family.name, family.bound, change.axis, change.method, change.recipe.canonical_json(), "").key


def main() -> int:
    """Measure what is missing, write the table and the picture, and say what is still missing."""
    options = _options()
    keep_libraries_quiet()
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.budget
    run = Run(RowFile(options.out / "rows.csv"), options.out / "stages", deadline, not options.no_timing)
    for name in options.families:
        family = FAMILIES[name]
        run.measure_family(family, changes_of(options.axes, family.epochs))
    rows = _in_order(run.rows.rows.values())
    (options.out / "matrix.md").write_text(to_markdown(rows, FAMILIES))
    if rows and importlib.util.find_spec("matplotlib"):
        from heat_map import draw

        draw(rows, FAMILIES, options.out / "matrix.png")
    elif rows:
        print("no picture: pip install matplotlib, then run this again", file=sys.stderr)
    for line in run.missing:
        print(f"missing: {line}", file=sys.stderr)
    return 0


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Order rows as they are measured, whatever was measured first."""
    keys = [Run.key(family, change) for family in FAMILIES.values() for change in changes_of(AXES, family.epochs)]
    position = {key: number for number, key in enumerate(keys)}
    return sorted(rows, key=lambda row: position.get(row.key, len(keys)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES), metavar="FAMILY", help=", ".join(FAMILIES)
    )
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=AXES, metavar="AXIS", help=", ".join(AXES))
    parser.add_argument("--budget", type=_refusing(parse_duration), default=float("inf"), help="time for this run, such as 10m")
    parser.add_argument("--no-timing", action="store_true", help="make and score the models only, beside other work")
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "matrix", help="folder of rows, tables, picture and stages")
    return parser.parse_args()


def _refusing(parse: Callable[[str], float]) -> Callable[[str], float]:
    """Make argparse say what is wrong with a value, in the words of autocut."""

    def parsed(text: str) -> float:
        try:
            return parse(text)
        except AutocutError as error:
            raise argparse.ArgumentTypeError(f"{error.message}; {error.hint}") from error

    return parsed


if __name__ == "__main__":
    sys.exit(main())
