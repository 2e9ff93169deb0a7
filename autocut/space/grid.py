"""Every recipe of a finite space, for an exhaustive table."""

from __future__ import annotations

from collections.abc import Iterator

from autocut.errors import SpaceError
from autocut.recipe import Recipe, Value
from autocut.space.axes import Axis, Space


def every_recipe(space: Space) -> tuple[Recipe, ...]:
    """Return every recipe of `space` once, in the order of its axes.

    Raises:
        SpaceError: An axis is continuous, so the space is infinite.
    """
    return tuple(dict.fromkeys(Recipe(settings) for settings in _walk(space, 0, {})))


def axis_values(axis: Axis) -> tuple[Value, ...]:
    """Return every value of `axis`.

    Raises:
        SpaceError: The axis is continuous.
    """
    if axis.choices:
        return axis.choices
    step = axis.step or (1 if axis.integer else None)
    if axis.low is None or axis.high is None or step is None:
        raise SpaceError(f"{axis.name} must have choices or a step to be counted, got {axis.describe()}", "give it choices")
    count = round((axis.high - axis.low) / step) + 1
    return tuple(int(axis.low + at * step) if axis.integer else axis.low + at * step for at in range(count))


def _walk(space: Space, at: int, chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
    if at == len(space.axes):
        yield chosen
        return
    axis = space.axes[at]
    if not space.is_active(axis, chosen):
        yield from _walk(space, at + 1, chosen)
        return
    for value in axis_values(axis):
        yield from _walk(space, at + 1, {**chosen, axis.name: value})
