"""How large the inputs of the linear layers of a model are, and how they rise and fall together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, fx, nn

from autocut.stages.calibration import in_steps
from autocut.task.batches import Inputs, call

_POSITIONS = 16_384
"""Enough for layers of a few thousand inputs. BERT-base, a quarter of a second an example, sees 128 examples of 128 tokens."""

K = TypeVar("K")


class Moments(Generic[K]):
    """Sums of the products of each two inputs, shape (columns, columns), by a key of the inputs."""

    def __init__(self) -> None:
        self.sums: dict[K, Tensor] = {}
        self._positions: dict[K, int] = {}

    def add(self, key: K, inputs: Tensor) -> None:
        """Take in `inputs`, shape (..., columns)."""
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        self.sums[key] = self.sums.get(key, 0) + rows.T @ rows
        self._positions[key] = self._positions.get(key, 0) + len(rows)

    def are_enough(self) -> bool:
        """Whether more positions would change little."""
        return min(self._positions.values(), default=0) >= _POSITIONS


def moments_by_name(outputs: Iterable[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Sum up what a runtime shows: for each call, the inputs of layers by name. It stops asking as soon as it has seen enough."""
    moments = Moments[str]()
    for one in outputs:
        for name, inputs in one.items():
            moments.add(name, inputs)
        if moments.are_enough():
            break
    return moments.sums


class _Observer(nn.Module):
    """Adds what it is called with to moments."""

    def __init__(self, moments: Moments[fx.Node], key: fx.Node) -> None:
        super().__init__()
        self._moments = moments
        self._key = key

    def forward(self, x: Tensor) -> None:
        """Take in `x`, shape (..., columns)."""
        self._moments.add(self._key, x)


def moments_of_graph(module: fx.GraphModule, nodes: Sequence[fx.Node], calibration: Sequence[Inputs]) -> Mapping[fx.Node, Tensor]:
    """Return the moments of the inputs of `nodes`, by the node that makes the inputs.

    Args:
        module: A graph. It is the same afterwards.
        nodes: Linear operators of it: the first argument are the inputs, shape (..., columns).
        calibration: Batches of typical inputs. No more are used than it takes for enough positions.
    """
    moments, added = Moments[fx.Node](), dict[fx.Node, fx.Node]()
    for node in nodes:
        source = node.args[0]
        if isinstance(source, fx.Node) and source not in added:
            module.add_submodule(name := f"_moments_{len(added)}", _Observer(moments, source))
            with module.graph.inserting_before(node):
                added[source] = module.graph.call_module(name, (source,))
    module.recompile()
    with torch.no_grad():
        for inputs in in_steps(calibration):
            call(module, inputs)
            if moments.are_enough():
                break
    for node in added.values():
        module.graph.erase_node(node)
        module.delete_submodule(str(node.target))
    module.recompile()
    return moments.sums
