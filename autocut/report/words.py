"""Values as people read them, in notes and plots."""

from __future__ import annotations

from autocut.budget import format_duration, format_size, format_usd

_LABELS = {
    "accuracy": "accuracy",
    "usd_per_million": "USD per million predictions",
    "latency_ms": "latency, ms (p50)",
    "size_bytes": "size, bytes",
    "compressed_size_bytes": "compressed size, bytes",
    "train_usd": "training, USD",
    "train_seconds": "training, CPU seconds by thread",
    "speedup": "speed-up",
}


def label(name: str) -> str:
    """Return the axis title of the value `name`."""
    return _LABELS.get(name, name.replace("_", " "))


def show(name: str, value: float | None) -> str:
    """Return `value` with its unit, in three or four digits."""
    if value is None:
        return "–"
    if name.endswith("_bytes"):
        return format_size(value)
    if name.endswith(("_seconds", "_s")):
        return format_duration(value)
    if name.startswith("usd") or name.endswith("_usd"):
        return format_usd(value)
    if name == "accuracy":
        return f"{value:.4f}"
    if name == "speedup":
        return f"{value:.2f}x"
    return f"{value:.3g} ms" if name.endswith("_ms") else f"{value:.4g}"
