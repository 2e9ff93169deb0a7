"""Fits a space to a task: without this, worker after worker would find out what the task cannot do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from autocut.recipe import Value
from autocut.space.axes import Axis, Space


def fit_space(space: Space, unfit: Mapping[str, Collection[str]]) -> Space:
    """Return `space` without the choices in `unfit` (axis -> names).

    Axes that are active only with these choices go too, and so do anchors that use them.
    """
    kept: dict[str, Axis] = {}
    for axis in space.axes:  # each comes after the axes in its condition
        choices = tuple(choice for choice in axis.choices if choice not in unfit.get(axis.name, ()))
        when = {parent: _taken(kept.get(parent), space.axis(parent), values) for parent, values in axis.when.items()}
        if (axis.choices and not choices) or not all(when.values()):
            continue
        kept[axis.name] = replace(axis, choices=choices, when=MappingProxyType(when))
    fitted = replace(space, axes=tuple(kept.values()))
    return replace(fitted, anchors=tuple(anchor for anchor in space.anchors if fitted.contains(anchor)))


def _taken(parent: Axis | None, before: Axis | None, values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the values of a condition that its axis still takes."""
    if parent is None:
        return () if before is not None else values
    return tuple(value for value in values if parent.takes(value))
