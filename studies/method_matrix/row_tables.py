"""The rows of the matrix as words and as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from families import Family
from rows import Row

from autocut.attribution.words import say_accuracy, say_factor
from autocut.measurement import UNDISTURBED, Interval

_HEAD = "| axis | method | accuracy | against training alone | batch 1 | batch 32 | size | seconds |"
_WITHOUT_GAIN = ("untouched", "train", "prune", "lowering")


def to_markdown(rows: Iterable[Row], families: Mapping[str, Family]) -> str:
    """Return a table for each family, in the order of `families`, and below it the reasons why changes were not measured."""
    parts = []
    for name, family in families.items():
        own = [row for row in rows if row.family == name and row.bound == family.bound]
        if own:
            parts.append(_family_table(family, own))
    return "\n\n".join(parts) + "\n"


def to_words(row: Row) -> str:
    """Return what a row says, in one line."""
    if row.reason:
        return f"{row.outcome}: {row.reason.partition(chr(10))[0]}"
    return f"accuracy {_accuracy(row)}, batch 1 {_speedup(row, 1)}, batch 32 {_speedup(row, 32)}, size {_size(row)}"


def _family_table(family: Family, rows: Sequence[Row]) -> str:
    measured = [row for row in rows if row.reason is None]
    reasons = list(dict.fromkeys(_reason(row) for row in rows if row.reason))
    numbers = {reason: number for number, reason in enumerate(reasons, start=1)}
    untouched = next((row for row in measured if row.axis == "untouched"), None)
    lines = [f"## {family.name}: {family.title}", "", _bound_words(family, untouched), "", _HEAD, "|" + "---|" * 8]
    lines += [_line(row) if row.reason is None else _refused_line(row, numbers[_reason(row)]) for row in rows]
    if reasons:
        lines += ["", *(f"{number}. {reason}" for reason, number in numbers.items())]
    return "\n".join(lines)


def _bound_words(family: Family, untouched: Row | None) -> str:
    words = f"Trainings: {family.bound}."
    if untouched is None or untouched.accuracy is None:
        return words
    return (
        f"Untouched: {untouched.metric} {untouched.accuracy:.4g}, {untouched.latency_1_ms:.3g} ms at batch 1, "
        f"{untouched.latency_32_ms:.3g} ms at batch 32, {(untouched.size_bytes or 0) / 1e3:.0f} kB. {words}"
    )


def _line(row: Row) -> str:
    seconds = (row.train_seconds or 0) + (row.lower_seconds or 0)
    gain = "" if row.axis in _WITHOUT_GAIN else _difference(row, "gain")
    cells = (_accuracy(row), gain, _speedup(row, 1), _speedup(row, 32), _size(row), f"{seconds:.1f}")
    return f"| {row.axis} | {row.method} | " + " | ".join(cells) + " |"


def _refused_line(row: Row, number: int) -> str:
    return f"| {row.axis} | {row.method} | {row.outcome} ({number}) | | | | | |"


def _reason(row: Row) -> str:
    """The first line of the reason: a table has no room for a traceback."""
    return (row.reason or "").partition("\n")[0][:300]


def _accuracy(row: Row) -> str:
    return _difference(row, "change")


def _difference(row: Row, name: str) -> str:
    value, low, high = (getattr(row, field) for field in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return ""
    return say_accuracy(Interval(value, low, high), is_share=0 <= (row.accuracy or -1) <= 1)


def _speedup(row: Row, size: int) -> str:
    value, low, high = (getattr(row, f"speedup_{size}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    return say_factor(Interval(value, low, high)) + (" (disturbed)" if (row.disturbance or 1) > UNDISTURBED else "")


def _size(row: Row) -> str:
    """The ratio of the files, and that of their archives where only the archive is smaller."""
    if row.size_ratio is None:
        return ""
    is_packed = row.compressed_ratio is not None and row.compressed_ratio < 0.95 * row.size_ratio
    return f"{row.size_ratio:.2f}" + (f" ({row.compressed_ratio:.2f} in an archive)" if is_packed else "")
