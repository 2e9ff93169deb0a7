"""Attention heads and neurons of feed-forward layers removed: thinner transformers whose stream keeps its width."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autocut.errors import DivergedError, InfeasibleRecipeError, quoted
from autocut.stages.prune import Pruned, PruneData, pruners
from autocut.stages.prune.attention import open_attention, with_linear_layers
from autocut.stages.prune.channels import kept_width
from autocut.stages.prune.parts import Hidden, find_hidden_layers
from autocut.stages.prune.refit import refit
from autocut.stages.prune.removal import remove_parts
from autocut.task.batches import batch_length, call
from autocut.task.task import evaluation_mode

PartScores = dict[Hidden, Tensor]
"""How much each part of each hidden layer matters, shape (parts,)."""


@pruners.register("heads_and_neurons")
def prune_heads_and_neurons(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Remove the attention heads and neurons that the loss needs least, and refit the layers that read them.

    A neuron lies between linear layers: in a feed-forward network, gated or not, or in any stack of them. Heads that share a key
    and a value go together. All are ranked together by their diagonal Fisher information per weight, on the given batches; the
    least go until `ratio` of the weights of all of them is gone. Each layer keeps one head, or some neurons, and their number is
    rounded as `structured` rounds widths. What is left is refitted by least squares on the given batches. The stream between the
    layers keeps its width. `nn.MultiheadAttention` and transformers' `Conv1D` are rewritten with `nn.Linear`.

    A layer is left whole where it runs more than once, shares its weight, or is followed by parameters per neuron or per head
    (batch normalization, relative positions).

    Raises:
        InfeasibleRecipeError: The model has no such heads or neurons, or the ratio removes none.
        DivergedError: The loss of a batch is not finite.

    References:
        Michel et al. 2019, https://arxiv.org/abs/1905.10650; Kwon et al. 2022, https://arxiv.org/abs/2204.09656
    """
    return _pruned("heads_and_neurons", model, ratio, data, _fisher)


@pruners.register("heads_and_neurons_random")
def prune_heads_and_neurons_random(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Remove heads and neurons at random, and refit: the control that tells whether a ranking is what helps.

    Raises:
        InfeasibleRecipeError: As `heads_and_neurons`.

    References:
        Mittal et al. 2018, https://arxiv.org/abs/1801.10447
    """
    return _pruned("heads_and_neurons_random", model, ratio, data, _random)


def _pruned(
    method: str, model: nn.Module, ratio: float, data: PruneData,
    score: Callable[[nn.Module, list[Hidden], PruneData], PartScores],
) -> Pruned:  # fmt: skip
    whole = _of_linear_layers(model, data)
    hidden_layers = find_hidden_layers(whole, data.inputs)
    if not hidden_layers:
        raise InfeasibleRecipeError(
            f"prune.method {quoted(method)} needs attention heads or neurons between linear layers, got none"
        )
    original = whole if data.original is None else _of_linear_layers(data.original, data)
    before = hidden_layers if data.original is None else find_hidden_layers(original, data.inputs)
    kept = _kept(score(whole, hidden_layers, data), whole, ratio, {hidden.reader: hidden for hidden in before}, original)
    if not kept:
        raise InfeasibleRecipeError(f"prune.ratio {ratio} removes no head and no neuron after rounding")
    pruned = copy.deepcopy(whole)
    left_whole = remove_parts(pruned, kept, data.inputs)
    cut = {hidden: parts for hidden, parts in kept.items() if hidden not in left_whole}
    if not cut:
        reasons = "; ".join(f"{hidden.reader}: {reason}" for hidden, reason in left_whole.items())
        raise InfeasibleRecipeError(f"prune.method {quoted(method)} needs heads or neurons that can go alone, got none: {reasons}")
    refit(pruned, whole, cut, [inputs for inputs, _ in data.batches])
    return Pruned(pruned)


def _of_linear_layers(model: nn.Module, data: PruneData) -> nn.Module:
    return open_attention(with_linear_layers(model), data.inputs)


def _kept(
    scores: PartScores, model: nn.Module, ratio: float, before: dict[str, Hidden], original: nn.Module
) -> dict[Hidden, Tensor]:
    """Return the sorted numbers of the parts that stay, for each hidden layer that loses some.

    The least important parts per weight go, until `ratio` of the weights of `original` is gone.
    """
    weights = {hidden: hidden.weights_of_a_part(model) for hidden in scores}
    all_of_them = sum(hidden.parts * hidden.weights_of_a_part(original) for hidden in before.values())
    too_many = sum(hidden.parts * weights[hidden] for hidden in scores) - (1 - ratio) * all_of_them
    ranked = sorted((float(score) / weights[hidden], hidden.reader) for hidden in scores for score in scores[hidden])
    layers = {hidden.reader: hidden for hidden in scores}
    left = {reader: hidden.parts for reader, hidden in layers.items()}
    for _, reader in ranked:
        if too_many <= 0:
            break
        if left[reader] > 1:
            left[reader] -= 1
            too_many -= weights[layers[reader]]
    kept = {}
    for reader, hidden in layers.items():
        count = left[reader]
        whole = before.get(hidden.reader, hidden).parts
        friendly = min(hidden.parts, kept_width(whole, 1 - count / whole))
        if friendly < hidden.parts:
            kept[hidden] = scores[hidden].argsort(descending=True, stable=True)[:friendly].sort().values
    return kept


def _random(model: nn.Module, hidden_layers: list[Hidden], data: PruneData) -> PartScores:  # noqa: ARG001 - as `_fisher`
    generator = torch.Generator().manual_seed(0)
    return {hidden: torch.rand(hidden.parts, generator=generator) * hidden.weights_of_a_part(model) for hidden in hidden_layers}


def _fisher(model: nn.Module, hidden_layers: list[Hidden], data: PruneData) -> PartScores:
    """Return the mean square, over examples, of the loss's derivative for a factor before each part."""
    scores = {hidden: torch.zeros(hidden.parts) for hidden in hidden_layers}
    copied = copy.deepcopy(model).requires_grad_(True)
    for hidden in hidden_layers:
        copied.get_submodule(hidden.reader).register_forward_pre_hook(partial(_watch, hidden, scores[hidden]))
    if not data.batches:
        raise ValueError("heads_and_neurons needs at least one batch for its gradients")
    with evaluation_mode(copied), torch.enable_grad():
        for inputs, targets in data.batches:
            copied.zero_grad(set_to_none=True)
            loss = data.loss(call(copied, inputs), targets)
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"the loss on the batches for prune.method 'heads_and_neurons' must be finite, got {loss.item()}"
                )
            (loss * batch_length(inputs)).backward()  # type: ignore[no-untyped-call]
    return scores


def _watch(hidden: Hidden, scores: Tensor, _: nn.Module, args: tuple[Any, ...]) -> None:
    """Add to `scores` when the gradient of what the reader reads, shape (examples, ..., columns), is there."""
    read = args[0]

    def add(gradient: Tensor) -> None:
        products = (read.detach() * gradient).unflatten(-1, (hidden.parts, hidden.width)).sum(-1)
        scores.add_(products.flatten(1, -2).sum(1).square().sum(0) if products.dim() > 2 else products.square().sum(0))

    read.register_hook(add)
