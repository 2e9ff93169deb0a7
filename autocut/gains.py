"""What a point of a front gains and loses against the untouched model, in numbers and in words. Arithmetic only, no torch.

An accuracy drop is ABSOLUTE: the untouched model's metric minus the point's metric.

A model has a ratio of the search, which chooses, and one of its final timing. Dollars are those of one process, or of the whole
machine. So every ratio says which one it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from autocut.front import FrontPoint
from autocut.measurement import Measurement
from autocut.recipe import UNTOUCHED

_TIMED = ("usd_per_million", "latency_ms")
"""Values that are timed: in the search, and again when a model is finalized."""

_NOTHING = 1e-7
"""Fewer points than that are what rounding leaves of none."""

_WORDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "usd_per_million": ("cheapest", "cheaper", "dearer"),
        "latency_ms": ("fastest", "faster", "slower"),
        "size_bytes": ("smallest", "smaller", "larger"),
        "train_usd": ("cheapest to train", "cheaper to train", "dearer to train"),
    }
)


def untouched(points: Sequence[FrontPoint]) -> FrontPoint | None:
    """Return the point of the untouched model, or None if it is not among `points`."""
    return next((point for point in points if point.recipe == UNTOUCHED), None)


def with_untouched(front: Sequence[FrontPoint], points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Return `front`, and the untouched model from `points` if it is not on it: all other points are compared with it."""
    baseline = untouched(points)
    beaten = [baseline] if baseline is not None and baseline.trial not in {point.trial for point in front} else []
    return [*front, *beaten]


def accuracy_drop(point: FrontPoint, baseline: FrontPoint) -> float:
    """Absolute drop of the metric from `baseline` to `point` on the validation split; negative if the point is better.

    The paired difference counts where it is known: it compares the two on the same examples, even if not all were scored.
    """
    difference = point.measurement.accuracy.difference
    return baseline.values["accuracy"] - point.values["accuracy"] if difference is None else -difference.value


def effect(point: FrontPoint, baseline: FrontPoint, objective: str) -> str:
    """Such as ``6.1x cheaper as one process in the search, accuracy 0.972 (-0.6 points) on validation``.

    The ratio of the final timing follows that of the search where the point has one.
    """
    gain = _gain(baseline.values[objective], point.values[objective], objective)
    change = signed_points(-accuracy_drop(point, baseline), baseline)
    accuracy = f"accuracy {point.values['accuracy']:.4g} ({change}{_floor(baseline)}) on validation"
    if objective not in _TIMED:
        return f"{gain}, {accuracy}"
    searched = f"{gain}{' as one process' if objective == 'usd_per_million' else ''}"
    if point.tested is None:
        return f"{searched} in the search, {accuracy}"
    final = _final_gain(point.tested.measurement, objective)
    if final == searched:
        return f"{searched} in the search and in the final timing, {accuracy}"
    return f"{searched} in the search, {final} in the final timing, {accuracy}"


def _floor(baseline: FrontPoint) -> str:
    """Say that a drop tells nothing where the untouched model answers everything wrong."""
    metric = baseline.measurement.accuracy.metric
    return "; the untouched model's is 0, so nothing can be lost" if metric.value == 0 and metric.low >= 0 else ""


def signed_points(change: float, baseline: FrontPoint) -> str:
    """As `metric_points`, with a sign."""
    return f"{'+' if change >= 0 else '-'}{metric_points(abs(change), baseline)}"


def metric_points(drop: float, baseline: FrontPoint) -> str:
    """A difference of the metric: in percentage points if the metric is a share, otherwise unchanged."""
    if not 0 <= baseline.values["accuracy"] <= 1:
        return f"{drop:.4g}"
    text = f"{drop * 100:.{decimals(drop * 100, least=2, digits=2)}f}".rstrip("0")
    text += "0" if text.endswith(".") else ""
    return f"{text} {'point' if text == '1.0' else 'points'}"


def decimals(points: float, least: int, digits: int = 1) -> int:
    """Return how many decimals show at least `digits` digits of `points` that are not leading zeros: `least`, or more."""
    if abs(points) < _NOTHING:
        return least
    return max(least, digits - 1 - math.floor(math.log10(abs(points))))


def cost_words(objective: str) -> tuple[str, str, str]:
    """Words for the least of a value, for less of it, and for more of it."""
    return _WORDS.get(objective, (f"least {objective}", f"less {objective}", f"more {objective}"))


def times(ratio: float) -> str:
    """Write a ratio of 1 or more in two digits, or in all digits before the point: ``6.1x``, ``128x``."""
    return f"{ratio:.2g}x" if ratio < 99.5 else f"{ratio:.0f}x"


def _gain(before: float, after: float, objective: str) -> str:
    _, better, worse = cost_words(objective)
    if before == after:
        return f"neither {better} nor {worse}"
    high, low = max(before, after), min(before, after)
    word = better if after < before else worse
    return f"{times(high / low)} {word}" if low > 0 else f"{high - low:.3g} {word}"


def _final_gain(measurement: Measurement, objective: str) -> str:
    """Such as ``4.2x cheaper on the whole machine``. A final timing has the untouched model's times beside its own."""
    if objective == "usd_per_million":
        return f"{_gain(measurement.cheaper, 1.0, objective)} {measurement.charged_as}"
    return _gain(measurement.cost.latencies[0].speedup.value, 1.0, objective)
