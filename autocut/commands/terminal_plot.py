"""The front on a terminal: a plot of characters, and a table that fits into the width.

Accuracy is that of the validation split, by which the search chose, and the plot says so.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence

from autocut.budget import format_size, format_usd
from autocut.front import FrontPoint
from autocut.picks import NamedPick
from autocut.recipe import UNTOUCHED

_HEIGHT = 11
_WIDEST = 100
_NARROWEST = 24
_SPAN_OF_LOGARITHM = 8.0
"""A cost axis that spans more than this factor is logarithmic: else the cheap points would stand in one column."""
_RECIPE_WIDTH = 32
"""A table whose recipes would get less than this shows them on lines of their own."""
_SEVERAL = "#"
_SPARE = ("training", "shrinkage", "size", "latency ms", "ms")
_AXES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "usd_per_million": ("dollars per million predictions", format_usd),
    "latency_ms": ("latency (p50)", "{:.3g} ms".format),
    "size_bytes": ("size", format_size),
    "train_usd": ("dollars for training", format_usd),
}


def plot_lines(points: Sequence[FrontPoint], cost: str, picks: Sequence[NamedPick], width: int) -> list[str]:
    """Draw accuracy on the validation split over the value `cost`, in at most `width` columns.

    The letters are the picks, `u` is the untouched model, `o` any other point, and `#` stands for several points in one place.
    Return no line where there is nothing to compare: fewer than two points, or all at one place.
    """
    spots = {point.trial: (point.values[cost], point.values["accuracy"]) for point in points}
    if len(set(spots.values())) < 2:
        return []
    costs, accuracies = zip(*spots.values(), strict=True)
    margin = max(len(f"{value:.4g}") for value in (min(accuracies), max(accuracies))) + 1
    columns = max(_NARROWEST, min(width, _WIDEST) - margin - 3)
    is_logarithmic = min(costs) > 0 and max(costs) > _SPAN_OF_LOGARITHM * min(costs)
    scale = math.log if is_logarithmic else float
    across = _places([scale(value) for value in costs], columns)
    upward = _places(list(accuracies), _HEIGHT)
    names = _letters(points, picks)
    cells = [[" "] * columns for _ in range(_HEIGHT)]
    # A pick covers everything else, and the untouched model all other points: everything is compared with it.
    drawn = sorted(zip(spots, across, upward, strict=True), key=lambda spot: _rank(names[spot[0]]))
    for trial, column, row in drawn:
        there = cells[_HEIGHT - 1 - row]
        is_free = there[column] == " " or _rank(names[trial]) > _rank(there[column])
        there[column] = names[trial] if is_free else _SEVERAL
    ends = {_HEIGHT - 1 - pick(upward): f"{pick(accuracies):.4g}" for pick in (max, min)}
    rows = [f"{ends.get(at, ''):>{margin}} |{''.join(line)}".rstrip() for at, line in enumerate(cells)]
    name, shown = _AXES.get(cost, (cost.replace("_", " "), "{:.3g}".format))
    low, high = shown(min(costs)), shown(max(costs))
    axis = f"{low}{high:>{columns - len(low)}}" if max(costs) > min(costs) else f"{low:^{columns}}".rstrip()
    title = f"{name}{', logarithmic' if is_logarithmic else ''}"
    below = [f"{'':{margin}} +{'-' * columns}", f"{'':{margin}}  {axis}", f"{'':{margin}}  {title:^{columns}}".rstrip()]
    key = textwrap.wrap(_key(points, picks, cells), max(width, _NARROWEST))
    return ["accuracy (validation)", *rows, *below, *key]


def table_in(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lay out a table of numbers, whose last column is a recipe, in `width` columns.

    Headings take two lines. Where the width does not allow it, the recipe of a row stands on lines below it, and the columns that a
    reader can best do without are left out. If that is not enough, spreads (what follows ``±``) are left out too.
    """
    shown = list(range(len(columns) - 1))
    spare = [columns.index(name) for name in _SPARE if name in columns]
    sizes = _sizes(columns, rows)

    def used() -> int:
        return sum(sizes[at] + 2 for at in shown)

    beside = width - used() >= _RECIPE_WIDTH
    while not beside and used() - 2 > width and spare:
        shown.remove(spare.pop(0))
    if not beside and used() - 2 > width:
        rows = [[*(cell.partition(" ±")[0] for cell in row[:-1]), row[-1]] for row in rows]
        sizes = _sizes(columns, rows)
    headings = [_halves(columns[at]) for at in shown]
    last = columns[-1] if beside else ""
    lines = []
    for half in (0, 1):
        cells = "  ".join(f"{heading[half]:>{sizes[at]}}" for at, heading in zip(shown, headings, strict=True))
        lines.append(f"{cells}  {last if half else ''}".rstrip())
    lines.append("  ".join("-" * sizes[at] for at in shown) + (f"  {'-' * len(last)}" if beside else ""))
    for row in rows:
        cells = "  ".join(f"{row[at]:>{sizes[at]}}" for at in shown)
        indent = len(cells) + 2 if beside else sizes[0] + 2
        words = textwrap.wrap(row[-1], max(width - indent, _NARROWEST))
        first = words[:1] if beside else []
        lines.append("  ".join([cells, *first]))
        lines += [f"{'':{indent}}{line}" for line in words[len(first) :]]
    return lines


def _sizes(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(_heading_width(name), *(len(row[at]) for row in rows)) if rows else len(name) for at, name in enumerate(columns)]


def _places(values: Sequence[float], cells: int) -> list[int]:
    low, high = min(values), max(values)
    return [round((value - low) / (high - low) * (cells - 1)) if high > low else cells // 2 for value in values]


def _letters(points: Sequence[FrontPoint], picks: Sequence[NamedPick]) -> dict[int, str]:
    letters = {point.trial: "u" if point.recipe == UNTOUCHED else "o" for point in points}
    for pick in reversed(picks):  # a point with several names gets the letter of the first
        letters[pick.point.trial] = pick.name[0].upper()
    return letters


def _rank(letter: str) -> int:
    return 2 if letter.isupper() else int(letter == "u")


def _key(points: Sequence[FrontPoint], picks: Sequence[NamedPick], cells: Sequence[Sequence[str]]) -> str:
    letters, drawn = _letters(points, picks), {cell for line in cells for cell in line}
    named = {trial: [pick.name for pick in picks if pick.point.trial == trial] for trial in letters}
    order = {pick.point.trial: None for pick in picks}
    parts = [f"{letters[trial]} {' and '.join(named[trial])}" for trial in order if trial in named]
    parts += ["u untouched model"] if "u" in drawn else []
    parts += ["o other points"] if "o" in drawn else []
    return "   ".join([*parts, *([f"{_SEVERAL} several points"] if _SEVERAL in drawn else [])])


def _halves(heading: str) -> tuple[str, str]:
    """Split a heading in two lines at its last space; one word stands on the lower line."""
    upper, _, lower = heading.rpartition(" ")
    return upper, lower


def _heading_width(heading: str) -> int:
    return max(map(len, _halves(heading)))
