"""Prune: remove weights before training recovers what they did.

A method is one function in one file of this folder, registered in `pruners`::

    @pruners.register("name")
    def prune_name(model: nn.Module, ratio: float, data: PruneData) -> Pruned: ...

It returns a new model and never touches the one it is given; a ratio that removes nothing raises `InfeasibleRecipeError`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from autocut.registry import MethodOptions, Registry, import_all
from autocut.task.batches import Inputs


@dataclass(frozen=True)
class PruneData:
    """What a method may look at: an example batch for tracing, and training batches with the task's loss for gradients.

    `original` is the model before its first cut where the one to prune was cut before: ratios always count from there.
    """

    inputs: Inputs
    batches: Sequence[tuple[Inputs, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    original: nn.Module | None = None


@dataclass(frozen=True)
class Pruned:
    """A pruned copy of the model.

    `masks` maps parameter names to boolean tensors of the parameter's shape, False where a weight was removed; training applies
    them after every step. Structured methods need none: what they remove is gone.
    """

    model: nn.Module
    masks: dict[str, Tensor] = field(default_factory=dict)


Pruner = Callable[[nn.Module, float, PruneData], Pruned]

pruners: Registry[Pruner, MethodOptions] = Registry("prune.method", MethodOptions)

import_all(sys.modules[__name__])
