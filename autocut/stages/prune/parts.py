"""Parts of a hidden layer that can go on their own: attention heads and neurons, found by their gradients.

A hidden layer lies between the linear layers that write it and the only one that reads it: query, key and value, and the output of
an attention; or the two halves of a feed-forward network. Its parts are the smallest equal blocks of the reader's columns that no
two parts share a written row of: a neuron is one column, a head is as many as it is wide, and heads that share their key and value
go together. What computes in between does not matter, so no operation can be unknown: the gradient of a column tells which rows it
depends on. The outputs of all linear layers are random numbers meanwhile, of which no gradient is zero by chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages.prune.layers import TRACING_ERRORS, first_line
from autocut.task.batches import Inputs, call
from autocut.task.task import evaluation_mode

_ANSWER = "the answer"


@dataclass(frozen=True, eq=False)
class Hidden:
    """One hidden layer of equal parts.

    `reader` and the keys of `writers` are names of linear layers. Part i has the columns [i * width, (i + 1) * width) of the
    reader's weight, and the rows `writers[name][i]` of each writer's; a table of rows has the shape (parts, rows of a part).
    """

    reader: str
    width: int
    writers: dict[str, Tensor]

    @property
    def parts(self) -> int:
        """Number of parts."""
        return len(next(iter(self.writers.values())))

    def weights_of_a_part(self, model: nn.Module) -> int:
        """Number of weights of `model` that go with one part."""
        read = self.width * len(model.get_parameter(f"{self.reader}.weight"))
        return read + sum(rows.shape[1] * model.get_parameter(f"{name}.weight").shape[1] for name, rows in self.writers.items())

    def rows(self, writer: str, parts: Tensor) -> Tensor:
        """Return the rows of `writer` of the parts with these numbers, in order."""
        return self.writers[writer][parts].flatten().sort().values

    def columns(self, parts: Tensor) -> Tensor:
        """Return the reader's columns of the parts with these numbers, in order."""
        return (parts[:, None] * self.width + torch.arange(self.width)).flatten()


def find_hidden_layers(model: nn.Module, inputs: Inputs) -> list[Hidden]:
    """Return the hidden layers of `model` that have at least two parts, in the order in which they are read.

    Layers that run more than once, or whose weight another module has too, belong to none.

    Args:
        model: Its attention should be made of `nn.Linear`, see `attention.py`. Not modified.
        inputs: A few examples.

    Raises:
        InfeasibleRecipeError: The model does not run with random numbers for what its layers answer.
    """
    trace = _trace(model, inputs)
    read_by: dict[str, list[str]] = {name: [] for name in trace.written}
    for reader, read in trace.read.items():
        for name in _touched(read, trace.written):
            read_by[name].append(reader)
    found = []
    for reader, read in trace.read.items():
        writers = {name: leaf for name, leaf in trace.written.items() if reader in read_by[name]}
        is_alone = reader in trace.plain and all(read_by[name] == [reader] and name in trace.plain for name in writers)
        if writers and is_alone and (hidden := _split(reader, read, writers)):
            found.append(hidden)
    return found


@dataclass
class _Trace:
    """One run of a model whose linear layers answered with random numbers, by the layers' names; a second call has a number."""

    read: dict[str, Tensor]
    written: dict[str, Tensor]
    plain: frozenset[str]
    """Layers that ran once, and alone have their weight."""


def _trace(model: nn.Module, inputs: Inputs) -> _Trace:
    layers: dict[nn.Module, str] = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    generator = torch.Generator().manual_seed(0)
    called: Counter[str] = Counter()
    read: dict[str, Tensor] = {}
    written: dict[str, Tensor] = {}

    def record(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not args:
            return None  # called by keywords: it counts as any other operation
        name = layers[layer]
        called[name] += 1
        key = name if called[name] == 1 else f"{name}, call {called[name]}"
        # Positive, so that no rectifier is closed.
        written[key] = torch.rand(output.shape, generator=generator).to(output).requires_grad_(True)
        read[key] = args[0]
        return written[key].clone()  # the model may change it in place

    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        with evaluation_mode(model), torch.enable_grad():
            read[_ANSWER] = call(model, inputs)
    except TRACING_ERRORS as error:
        raise InfeasibleRecipeError(
            f"the model does not run where its linear layers answer with random numbers: {first_line(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    plain = {name for layer, name in layers.items() if called[name] == 1 and owners[id(layer.get_parameter("weight"))] == 1}
    return _Trace(read, written, frozenset(plain))


def _touched(read: Tensor, written: dict[str, Tensor]) -> list[str]:
    """Names of the layers whose output `read` depends on, with no other linear layer in between."""
    if not read.requires_grad:
        return []
    gradients = torch.autograd.grad(read, list(written.values()), _weights(read), retain_graph=True, allow_unused=True)
    return [name for name, gradient in zip(written, gradients, strict=True) if gradient is not None and _is_there(gradient).any()]


def _split(reader: str, read: Tensor, writers: dict[str, Tensor]) -> Hidden | None:
    """Return the parts of what `reader` reads; None where it has one part alone, or parts that are not alike."""
    columns = torch.arange(read.shape[-1])

    def rows_of(chosen: Tensor) -> Tensor:
        """Which rows, of all writers one after the other, the chosen columns depend on."""
        gradients = torch.autograd.grad(read, list(writers.values()), _weights(read) * chosen.to(read), retain_graph=True)
        return torch.cat([_is_there(gradient).flatten(0, -2).any(0) for gradient in gradients])

    width = _first_width(len(columns), lambda start: bool((rows_of(columns == 0) & rows_of(columns >= start)).any()))
    parts = len(columns) // width
    if parts < 2 or len(columns) % width:
        return None
    owner = torch.zeros(sum(leaf.shape[-1] for leaf in writers.values()), dtype=torch.long)
    for bit in range((parts - 1).bit_length()):
        is_set = (columns // width >> bit) % 2 == 1
        ones, zeros = rows_of(is_set), rows_of(~is_set)
        if not torch.equal(ones, ~zeros):
            return None  # a row that no column depends on, or columns of two parts
        owner += ones.long() << bit
    tables = {}
    for name, owned in zip(writers, torch.split(owner, [leaf.shape[-1] for leaf in writers.values()]), strict=True):
        if not torch.equal(owned.bincount(minlength=parts), torch.full((parts,), len(owned) // parts)):
            return None
        tables[name] = owned.argsort(stable=True).view(parts, -1)
    return Hidden(reader, width, tables)


def _first_width(columns: int, overlaps: Callable[[int], bool]) -> int:
    """Return the first column from which on no column shares a row with column 0. `overlaps(start)` is asked by bisection."""
    low, high = 0, columns  # low overlaps, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if overlaps(middle) else (low, middle)
    return high


def _weights(read: Tensor) -> Tensor:
    return 0.5 + torch.rand(read.shape, generator=torch.Generator().manual_seed(1)).to(read)


def _is_there(gradient: Tensor) -> Tensor:
    """Whether a gradient is not zero. A row of a mask that leaves nothing makes NaN, which tells nothing."""
    return gradient.nan_to_num() != 0
