"""Dimensions of inputs that may differ between batches: ``Task(dynamic=...)``.

    dynamic={"input_ids": {1: "length"}, "attention_mask": {1: "length"}}

Dimension 1 of both inputs is free, and is the same number within one batch. A model of one tensor calls it ``input_0``, one of a
tuple ``input_0``, ``input_1`` and so on. The batch, dimension 0, is always free and is not named.

A shape with names, such as ``(None, "length", 16)``, has None for the batch, a name for each free dimension, and fixed numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autocut.errors import Fault, nearest_hint, quoted
from autocut.task.batches import Inputs, tensors, transform

Dynamic = Mapping[str, Mapping[int, str]]
NamedShape = tuple[int | str | None, ...]
"""None for the batch, a name for a free dimension, a number for a fixed one."""

_EXAMPLE = 'dynamic={"input_ids": {1: "length"}}: input, dimension from 1 on, name'


def named_dimensions(dynamic: Dynamic | None) -> list[tuple[str, int, str]]:
    """Return (input, dimension, name) of every free dimension, sorted."""
    return sorted((name, axis, free) for name, axes in (dynamic or {}).items() for axis, free in axes.items())


def named_shape(name: str, shape: Sequence[int], dynamic: Dynamic | None) -> NamedShape:
    """Return `shape`, that of the input `name`, with None for the batch and the names of its free dimensions."""
    free = (dynamic or {}).get(name, {})
    return (None, *(free.get(axis, size) for axis, size in enumerate(shape[1:], 1)))


def sizes_of(dynamic: Dynamic | None, inputs: Inputs) -> dict[str, int]:
    """Return the size of each free dimension of one batch by its name. `batch_faults` has checked that inputs agree."""
    named = tensors(inputs)
    return {free: int(named[name].shape[axis]) for name, axis, free in named_dimensions(dynamic)}


def resized(inputs: Inputs, shapes: Mapping[str, NamedShape], sizes: Mapping[str, int]) -> Inputs:
    """Return `inputs` with free dimensions of `sizes`: longer ones are cut, shorter ones repeat from the start.

    Args:
        inputs: A batch.
        shapes: The named shape of each input.
        sizes: Sizes by name; a dimension whose name is missing stays as it is.
    """
    known = iter(tensors(inputs).items())

    def change(tensor: Tensor) -> Tensor:
        name, _ = next(known)
        for axis, free in enumerate(shapes[name]):
            if isinstance(free, str) and free in sizes and tensor.shape[axis] != sizes[free]:
                tensor = tensor.index_select(axis, torch.arange(sizes[free]) % tensor.shape[axis])
        return tensor

    return transform(inputs, change)


def setting_faults(dynamic: Any) -> Iterator[Fault]:
    """What of `dynamic` is no mapping of inputs to named dimensions."""
    if dynamic is None:
        return
    if not isinstance(dynamic, Mapping) or not dynamic:
        yield Fault(f"task.dynamic must map inputs to their free dimensions, got {quoted(dynamic)}", _EXAMPLE)
        return
    for name, axes in dynamic.items():
        if not isinstance(name, str):
            yield Fault(f"task.dynamic must name inputs, got {quoted(name)}", f"{_EXAMPLE}; the first of a tuple is 'input_0'")
        if not isinstance(axes, Mapping) or not axes:
            yield Fault(f"task.dynamic[{quoted(name)}] must map dimensions to names, got {quoted(axes)}", _EXAMPLE)
            continue
        for axis, free in axes.items():
            if not isinstance(axis, int) or isinstance(axis, bool) or axis < 1:
                yield Fault(
                    f"task.dynamic[{quoted(name)}] must name dimensions from 1 on, got {quoted(axis)}", "dimension 0 is the batch"
                )
            if not isinstance(free, str) or not free.isidentifier():
                yield Fault(
                    f"task.dynamic[{quoted(name)}][{quoted(axis)}] must be a name such as 'length', got {quoted(free)}", _EXAMPLE
                )


def batch_faults(dynamic: Dynamic | None, inputs: Inputs) -> Iterator[Fault]:
    """What of `dynamic` does not fit a batch: an input or dimension that is not there, or two sizes for one name."""
    named, sizes = tensors(inputs), dict[str, tuple[int, str]]()
    for name, axis, free in named_dimensions(dynamic):
        if name not in named:
            hint = nearest_hint(name, named) or f"dynamic={{{quoted(next(iter(named)))}: {{{axis}: {quoted(free)}}}}}"
            yield Fault(f"task.dynamic must name inputs of the model ({', '.join(named)}), got {quoted(name)}", hint)
            continue
        if axis >= named[name].dim():
            yield Fault(
                f"task.dynamic[{quoted(name)}] must name dimensions below {named[name].dim()}, got {axis}",
                "count from 0, the batch",
            )
            continue
        size, other = sizes.setdefault(free, (int(named[name].shape[axis]), name))
        if size != named[name].shape[axis]:
            yield Fault(
                f"task.dynamic's {quoted(free)} must be one size within a batch, got {size} in {other} and "
                f"{named[name].shape[axis]} in {name}",
                "pad both to one length in collate=, or give them two names",
            )
