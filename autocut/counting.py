"""Numbers of things, in words."""

from __future__ import annotations


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """Write a number of things: ``1 epoch``, ``2 epochs``, ``1,200 examples``. Without `plural`, an s makes one."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
