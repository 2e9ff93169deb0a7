"""What `autocut compare` finds, in sentences. A tie is called a tie."""

from __future__ import annotations

from autocut.budget import format_size, format_usd
from autocut.counting import format_count
from autocut.deploy.compare import BundleComparison, is_tie
from autocut.deploy.compare_studies import ComparedStudy, StudyComparison, measurement_on, values_on
from autocut.measurement import Accuracy, Interval
from autocut.score import METRICS


def bundle_sentences(compared: BundleComparison) -> tuple[str, ...]:
    """Say which of two bundles is faster, more accurate and smaller."""
    speeds = [_speed(size, speedup) for size, speedup in compared.speedups.items()]
    return (*speeds, _accuracy(compared), _size(compared))


def study_sentences(compared: StudyComparison) -> tuple[str, ...]:
    """Say which of two studies has the better front, and how their picks differ."""
    sides = [_front("A", compared.a), _front("B", compared.b)]
    return (*sides, _picks(compared))


def _speed(size: int, speedup: Interval) -> str:
    if is_tie(speedup):
        return f"batch {size}: a tie; B is {speedup.value:.3g} times as fast as A ({_ends(speedup)}), which may be chance"
    faster, slower, ratio = ("B", "A", speedup) if speedup.value > 1 else ("A", "B", _inverse(speedup))
    return f"batch {size}: {faster} is {ratio.value:.3g} times as fast as {slower} ({_ends(ratio)})"


def _accuracy(compared: BundleComparison) -> str:
    if compared.shared is None:
        return "accuracy: not compared, because the two bundles share no examples on which a metric is defined"
    a, b = compared.shared
    counted = format_count(a.examples, "shared example")
    told = f"A {a.metric.value:.4g}, B {b.metric.value:.4g} on {counted}"
    difference = b.difference
    if compared.is_accuracy_tie is None or difference is None:
        return f"accuracy: {told}"
    if compared.is_accuracy_tie:
        return f"accuracy: a tie; {told} ({_difference(b, difference)})"
    return f"accuracy: {'B' if difference.value > 0 else 'A'} is better; {told} ({_difference(b, difference)})"


def _difference(b: Accuracy, difference: Interval) -> str:
    p_value = "" if b.p_value is None else f", p = {b.p_value:.2g}"
    return f"difference {difference.value:+.4f}, {difference.low:+.4f} to {difference.high:+.4f}{p_value}"


def _size(compared: BundleComparison) -> str:
    a, b = compared.a.size_bytes, compared.b.size_bytes
    if compared.is_size_tie:
        return f"size: a tie; {format_size(a)} each"
    smaller, larger, share = ("B", "A", 1 - b / a) if b < a else ("A", "B", 1 - a / b)
    return f"size: {smaller} is {share:.2%} smaller than {larger}; A {format_size(a)}, B {format_size(b)}"


def _front(name: str, side: ComparedStudy) -> str:
    models = f"{format_count(len(side.front), 'model')} on the front"
    if side.share is None:
        return f"{name}: {models}"
    return f"{name}: {models}, covering {side.share:.1%} of what both fronts cover together"


def _picks(compared: StudyComparison) -> str:
    a, b = compared.a.pick, compared.b.pick
    if a is None or b is None:
        return f"picks: {'A' if a is None else 'B'} has none"
    first, second = values_on(a, compared.split), values_on(b, compared.split)
    charged = {measurement_on(pick, compared.split).charged_as for pick in (a, b)}
    whose = f" {charged.pop()}" if len(charged) == 1 else ""  # else a note says that they do not compare
    labels = {name: _label(name) + (whose if name == "usd_per_million" else "") for name in compared.objectives}
    pairs = [f"{label} {shown(name, first[name])} and {shown(name, second[name])}" for name, label in labels.items()]
    told = f"trial {a.trial} of A and trial {b.trial} of B: {', '.join(pairs)} ({compared.split})"
    return f"picks: a tie; {told}" if compared.is_pick_tie else f"picks: {told}"


def _label(name: str) -> str:
    return (
        name
        if name not in METRICS
        else {"usd_per_million": "a million predictions", "latency_ms": "a call", "size_bytes": "size"}.get(name, name)
    )


def shown(name: str, value: float) -> str:
    """Return a value with its unit."""
    if name.endswith(("usd", "usd_per_million")):
        return format_usd(value)
    if name.endswith("_bytes"):
        return format_size(int(value))
    return f"{value:.4g} ms" if name.endswith("_ms") else f"{value:.4g}"


def _inverse(ratio: Interval) -> Interval:
    return Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)


def _ends(interval: Interval) -> str:
    return f"{interval.low:.3g} to {interval.high:.3g}"
