"""A space without what the task at hand cannot do: nobody should wait for a worker to find that out, again and again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from autocut.recipe import Value
from autocut.space.axes import Axis, Space


def fit_space(space: Space, unfit: Mapping[str, Collection[str]]) -> Space:
    """Return `space` without the choices in `unfit`, a collection of names for each axis that has some.

    What depends on them goes with them: the axes that count beside them alone, and the anchors that use them.
    """
    kept: dict[str, Axis] = {}
    for axis in space.axes:  # conditions come before what they decide
        choices = tuple(choice for choice in axis.choices if choice not in unfit.get(axis.name, ()))
        when = {parent: _taken(kept.get(parent), space.axis(parent), values) for parent, values in axis.when.items()}
        if (axis.choices and not choices) or not all(when.values()):
            continue
        kept[axis.name] = replace(axis, choices=choices, when=MappingProxyType(when))
    fitted = replace(space, axes=tuple(kept.values()))
    return replace(fitted, anchors=tuple(anchor for anchor in space.anchors if fitted.contains(anchor)))


def _taken(parent: Axis | None, before: Axis | None, values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The values of a condition that its axis still takes."""
    if parent is None:
        return () if before is not None else values
    return tuple(value for value in values if parent.takes(value))
