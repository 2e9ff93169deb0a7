"""What a person who watches a search reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autocut.budget import format_usd
from autocut.front import FrontPoint

_CLOSE = 0.01
"""A point may lose this much of the metric to be the best so far: the drop in the examples of `autocut select`."""


@dataclass
class Progress:
    """Counts and lines for the user; `stopped` are trainings that could not reach the front any more."""

    done: int = 0
    stopped: int = 0
    failed: int = 0
    bugs: int = 0
    stage: str = "starting"
    lines: deque[str] = field(default_factory=deque)


def headline(values: Mapping[str, float]) -> str:
    """Return the numbers of one measured model in one phrase."""
    cost = f"{format_usd(values['usd_per_million'])} per million"
    return f"accuracy {values['accuracy']:.4f}, {cost}, {values['speedup']:.2f}x faster"


def best_so_far(front: Iterable[FrontPoint]) -> str:
    """Return one phrase about the cheapest point that loses at most a point of the metric; empty where there is none."""
    close = [point for point in front if (gap := point.measurement.accuracy.difference) is None or gap.value >= -_CLOSE]
    cheapest = min(close, key=lambda point: point.values["usd_per_million"], default=None)
    if cheapest is None:
        return ""
    values = cheapest.values
    return f"{format_usd(values['usd_per_million'])}/M ({values['speedup']:.1f}x) at {values['accuracy']:.4f}"
