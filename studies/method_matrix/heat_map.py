"""Draws the matrix: a row for each method, a column for each family; accuracy, speed at both batch sizes, and size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from families import Family
from rows import Row

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

_MOST_PERCENT = 10.0
_MOST_DOUBLINGS = 3.0
_KEEPS_SHAPE = ("train", "curriculum", "distill")
"""Axes that change no structure, so neither speed nor size: their cells say nothing there."""


@dataclass(frozen=True)
class _Panel:
    """One measured value: its title, and its color and text for a row. -1 is worst, 1 best, None where there is no value."""

    title: str
    color: Callable[[Row, Row], float | None]
    text: Callable[[Row, Row], str]


def draw(rows: Sequence[Row], families: Mapping[str, Family], path: Path) -> None:
    """Write the picture of `rows` to `path`."""
    shown = [name for name in families if any(row.family == name for row in rows)]
    known = {(row.family, row.axis, row.method): row for row in rows if row.bound == families[row.family].bound}
    methods = list(dict.fromkeys((axis, method) for _, axis, method in known if axis != "untouched"))
    order = list(dict.fromkeys(axis for axis, _ in methods))
    methods.sort(key=lambda key: order.index(key[0]))
    figure, panels = plt.subplots(
        1, len(_PANELS), figsize=(3.6 + 0.62 * len(shown) * len(_PANELS), 1.8 + 0.235 * len(methods)), sharey=True,
    )  # fmt: skip
    for axes, panel in zip(panels, _PANELS, strict=True):
        _draw_panel(axes, panel, methods, shown, known)
    panels[0].set_yticks(range(len(methods)), [method for _, method in methods], fontsize=8)
    _name_axes(panels[0], methods)
    figure.suptitle(
        "One change at a time from the untouched model. Green is better, red is worse; hatched: infeasible, ×: failed", fontsize=10
    )
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_panel(
    axes: Axes, panel: _Panel, methods: Sequence[tuple[str, str]], shown: Sequence[str], known: Mapping[tuple[str, str, str], Row]
) -> None:
    """Draw one value of all rows."""
    colors = np.full((len(methods), len(shown)), np.nan)
    for at, (axis, method) in enumerate(methods):
        for column, family in enumerate(shown):
            row, untouched = known.get((family, axis, method)), known.get((family, "untouched", "untouched"))
            if row is None or untouched is None:
                continue
            if row.reason is not None:
                _mark_refused(axes, column, at, row)
                continue
            color = panel.color(row, untouched)
            if color is not None:
                colors[at, column] = color
                axes.text(column, at, panel.text(row, untouched), ha="center", va="center", fontsize=6.5)
    axes.imshow(colors, cmap="RdYlGn", vmin=-1.25, vmax=1.25, aspect="auto")
    axes.set_title(panel.title, fontsize=9)
    axes.set_xticks(range(len(shown)), shown, rotation=60, ha="right", fontsize=8)
    axes.set_xticks(np.arange(len(shown) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(methods) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    for at in range(1, len(methods)):
        if methods[at][0] != methods[at - 1][0]:
            axes.axhline(at - 0.5, color="black", linewidth=1)


def _mark_refused(axes: Axes, column: int, at: int, row: Row) -> None:
    """Hatch what cannot be; cross what failed, or is a fault."""
    axes.add_patch(Rectangle((column - 0.5, at - 0.5), 1, 1, facecolor="#e8e8e8", edgecolor="#b8b8b8", hatch="////", linewidth=0))
    if row.outcome != "infeasible":
        axes.text(column, at, "×", ha="center", va="center", fontsize=9, color="darkred")


def _name_axes(axes: Axes, methods: Sequence[tuple[str, str]]) -> None:
    """Write the name of each axis beside its methods."""
    for axis in dict.fromkeys(axis for axis, _ in methods):
        places = [at for at, (of_axis, _) in enumerate(methods) if of_axis == axis]
        if len(places) > 1:
            axes.annotate(
                axis, (0, (places[0] + places[-1]) / 2), xytext=(-175, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", rotation=90, va="center", ha="center", fontsize=10, weight="bold",
            )  # fmt: skip


def _percent(name: str) -> Callable[[Row, Row], float | None]:
    """Return a difference of the metric in percent of the untouched model's metric."""

    def percent(row: Row, untouched: Row) -> float | None:
        value: float | None = getattr(row, name)
        return None if value is None or not untouched.accuracy else 100 * value / abs(untouched.accuracy)

    return percent


def _accuracy_panel(title: str, name: str) -> _Panel:
    percent = _percent(name)

    def color(row: Row, untouched: Row) -> float | None:
        value = percent(row, untouched)
        if value is None:
            return None
        return math.copysign(min(1.0, math.log1p(abs(value)) / math.log1p(_MOST_PERCENT)), value)

    def text(row: Row, untouched: Row) -> str:
        value = percent(row, untouched) or 0.0
        low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
        return f"{value:+.1f}" if abs(value) < 100 else f"{value:+.0f}" if low <= 0 <= high or abs(value) < 1000 else "<-999"

    return _Panel(title, color, text)


def _ratio_panel(title: str, name: str, *, smaller_is_better: bool = False) -> _Panel:
    def color(row: Row, untouched: Row) -> float | None:  # noqa: ARG001
        value: float | None = getattr(row, name)
        if value is None or row.axis in _KEEPS_SHAPE:
            return None
        doublings = math.log2(value) * (-1 if smaller_is_better else 1)
        return max(-1.0, min(1.0, doublings / _MOST_DOUBLINGS))

    return _Panel(title, color, lambda row, _: f"{getattr(row, name):.2f}")


_PANELS = (
    _accuracy_panel("metric, %\nagainst untouched", "change"),
    _accuracy_panel("metric, %\nagainst training alone", "gain"),
    _ratio_panel("times as fast\nat batch 1", "speedup_1"),
    _ratio_panel("times as fast\nat batch 32", "speedup_32"),
    _ratio_panel("size of the file", "size_ratio", smaller_is_better=True),
)
