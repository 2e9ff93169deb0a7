"""Whole channels removed together with everything that depends on them: smaller tensors, real speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from torch import nn

from autocut.errors import DivergedError
from autocut.stages.prune import Pruned, PruneData, pruners
from autocut.stages.prune.batch_norm import reestimate_batch_norm
from autocut.stages.prune.channels import prune_channels
from autocut.stages.prune.last_layer import refit_last_layer
from autocut.task.batches import call
from autocut.task.task import evaluation_mode


@pruners.register("structured", version=5, requires=("torch_pruning",))
def prune_structured(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Remove the channels of smallest norm, as groups of a dependency graph.

    Each group (a channel of one layer with everything coupled to it) loses about `ratio` of its channels, rounded so that the width
    that is left suits vector units; the rounding is finer for narrow layers. Inputs and outputs of the model keep their shapes. A
    group is left whole if its removal would change other channels too (attention written by hand, a channel-wise constant). The
    example batch is traced and used to check each group. MACs fall about with the square of `ratio`. The
    statistics of batch normalization are taken again on the given batches, and the last linear layer is refitted on them to answer
    as before.

    Raises:
        InfeasibleRecipeError: Nothing can be removed: no group that is safe to cut, or a ratio below half a rounding step.

    References:
        Fang et al. 2023, DepGraph, https://arxiv.org/abs/2301.12900
    """

    def importance(_: nn.Module) -> Any:
        return torch_pruning.importance.GroupMagnitudeImportance(p=2)

    return _pruned(model, ratio, data, importance)


@pruners.register("structured_random", version=3, requires=("torch_pruning",))
def prune_structured_random(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Remove channels at random, as groups of a dependency graph: the control that tells whether a ranking is what helps.

    Raises:
        InfeasibleRecipeError: As `structured`.

    References:
        Mittal et al. 2018, https://arxiv.org/abs/1801.10447
    """

    def importance(_: nn.Module) -> Any:
        generator = torch.Generator().manual_seed(0)
        return lambda group: torch.rand(len(group[0].idxs), generator=generator)

    return _pruned(model, ratio, data, importance)


@pruners.register("structured_taylor", version=5, requires=("torch_pruning",))
def prune_structured_taylor(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Remove the channels whose loss would change least, as groups of a dependency graph.

    As `structured`, but channels are ranked by the first-order Taylor term |weight x gradient|, gradients summed over the given
    batches.

    Raises:
        InfeasibleRecipeError: As `structured`.
        DivergedError: The loss of a batch is not finite.

    References:
        Molchanov et al. 2019, https://arxiv.org/abs/1906.10771
    """

    def importance(copied: nn.Module) -> Any:
        _accumulate_gradients(copied, data)
        return torch_pruning.importance.GroupTaylorImportance()

    return _pruned(model, ratio, data, importance)


def _pruned(model: nn.Module, ratio: float, data: PruneData, importance: Callable[[nn.Module], Any]) -> Pruned:
    pruned = prune_channels(model, ratio, data.inputs, importance, data.original)
    reestimate_batch_norm(pruned, data.batches)
    refit_last_layer(pruned, model, data.batches)
    return Pruned(pruned)


def _accumulate_gradients(model: nn.Module, data: PruneData) -> None:
    if not data.batches:
        raise ValueError("structured_taylor needs at least one batch for its gradients")
    model.zero_grad(set_to_none=True)
    with evaluation_mode(model), torch.enable_grad():
        for inputs, targets in data.batches:
            loss = data.loss(call(model, inputs), targets)
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"the loss on the batches for prune.method 'structured_taylor' must be finite, got {loss.item()}"
                )
            loss.backward()  # type: ignore[no-untyped-call]
