"""The forms of a batch, and functions that work on every form.

A batch is ``(inputs, targets)``. Inputs have one of three forms, the same from the data to the exported artifact:

    Tensor               model(x)
    tuple of tensors     model(*xs)
    dict of tensors      model(**xs)

The first dimension of every tensor is the batch. A model may answer with a tensor, a tuple, a mapping or an object with ``logits``:
`autocut.task.outputs` finds the tensor that the task is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.counting import format_count
from autocut.task.outputs import output_tensor

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Batch = tuple[Inputs, Tensor]


def call(model: Callable[..., Any], inputs: Inputs) -> Tensor:
    """Call `model` as the form of `inputs` requires, and return its output tensor."""
    if isinstance(inputs, Tensor):
        return output_tensor(model(inputs))
    if isinstance(inputs, Mapping):
        return output_tensor(model(**inputs))
    return output_tensor(model(*inputs))


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    """Every tensor of `inputs` by name: a dict's own keys, otherwise ``input_0``, ``input_1`` and so on, by position."""
    if isinstance(inputs, Tensor):
        return {"input_0": inputs}
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return {f"input_{position}": tensor for position, tensor in enumerate(inputs)}


def batch_length(inputs: Inputs) -> int:
    """Number of examples in `inputs`."""
    return len(next(iter(tensors(inputs).values())))


def transform(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Apply `change` to every tensor and keep the form."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {name: change(tensor) for name, tensor in inputs.items()}
    return tuple(change(tensor) for tensor in inputs)


def take(inputs: Inputs, n: int) -> Inputs:
    """Return the first `n` examples, or all if there are fewer. The result is a view."""
    return transform(inputs, lambda tensor: tensor[:n])


def cut(batch: Batch, n: int) -> Batch:
    """Return the first `n` examples with their targets, or all if there are fewer."""
    inputs, targets = batch
    return take(inputs, n), targets[:n]


def pad(inputs: Inputs, n: int) -> Inputs:
    """Return exactly `n` examples: the given ones, repeated from the start.

    The padding is real rows, not zeros. So a padded row can neither overflow nor divide by zero, and takes as long as any other.

    Raises:
        ValueError: there are more than `n` examples, or none.
    """
    length = batch_length(inputs)
    if not 0 < length <= n:
        raise ValueError(f"a batch that is padded to {n} must hold 1 to {format_count(n, 'example')}, got {length}")
    rows = torch.arange(n) % length
    return inputs if length == n else transform(inputs, lambda tensor: tensor[rows.to(tensor.device)])


def copied(inputs: Inputs) -> Inputs:
    """Return a copy, for a model that may change its inputs in place."""
    return transform(inputs, torch.clone)


def changed(inputs: Inputs, before: Inputs) -> list[str]:
    """Names of the tensors in `inputs` that differ from those in `before`."""
    old = tensors(before)
    return [name for name, tensor in tensors(inputs).items() if tensor_identity("", tensor) != tensor_identity("", old[name])]


def move(inputs: Inputs, device: torch.device | str) -> Inputs:
    """Return `inputs` on `device`."""
    return transform(inputs, lambda tensor: tensor.to(device))


def to_numpy(inputs: Inputs) -> dict[str, NDArray[Any]]:
    """Arrays by name (see `tensors`), for runtimes and files without torch."""
    return {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in tensors(inputs).items()}


def tensor_bytes(tensor: Tensor) -> bytes:
    """Values of `tensor` as bytes, for every dtype (numpy has no bfloat16)."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def tensor_identity(name: str, tensor: Tensor) -> bytes:
    """Name, dtype, shape and values of `tensor`, for a hash."""
    return f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor_bytes(tensor)


def from_numpy(arrays: Mapping[str, NDArray[Any]]) -> Inputs:
    """Inverse of `to_numpy`, with one exception: a tuple of one tensor becomes that tensor, which calls a model in the same way."""
    loaded = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    positions = [f"input_{position}" for position in range(len(loaded))]
    if set(loaded) != set(positions):
        return loaded
    return loaded["input_0"] if len(loaded) == 1 else tuple(loaded[name] for name in positions)
