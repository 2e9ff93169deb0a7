"""Prune: remove weights, before a training that recovers the accuracy or after one.

A method is one file of this folder. It registers a function in `pruners`::

    @pruners.register("random_weights", version=1, requires=("my_library",), install="pip install my-library")
    def prune_random_weights(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
        "Zero random weights of the first layer."  # the line that `autocut methods` shows
        pruned = copy.deepcopy(model)
        name, weight = next(pruned.named_parameters())
        mask = torch.rand_like(weight) > ratio
        weight.data.mul_(mask)
        return Pruned(pruned, {name: mask})

The function returns a new model and does not change the trained one that it gets. It is called with 0 < ratio < 1, the fraction to
remove of the weights that take part, or of the channels of each group. A ratio that removes nothing, or a model that the method
cannot take, raises `InfeasibleRecipeError`. Raise `version` when the results change. `registry.Method` says what else a method of
any axis can register.
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

    `original` is the model before its first cut, for a model that was cut before: ratios always count from there.
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
