"""Numbers of things, in words."""

from __future__ import annotations


def format_count(count: float, noun: str, plural: str | None = None) -> str:
    """Write a number of things: ``1 epoch``, ``2 epochs``, ``1,200 examples``, ``0.5 points``. Without `plural`, an s makes one."""
    return f"{count:,} {inflected(count, noun, plural)}"


def inflected(count: float, noun: str, plural: str | None = None) -> str:
    """Return the form of `noun` that stands behind or beside the number `count`. Without `plural`, an s makes one."""
    return noun if count == 1 else plural or f"{noun}s"
