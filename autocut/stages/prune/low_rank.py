"""Linear layers written as the product of two thin ones: fewer weights and fewer operations."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocut.counting import format_count
from autocut.errors import InfeasibleRecipeError
from autocut.stages.prune import Pruned, PruneData, pruners
from autocut.stages.prune.batch_norm import reestimate_batch_norm
from autocut.stages.prune.channels import kept_width
from autocut.stages.prune.layers import TRACING_ERRORS, calls, last_to_run
from autocut.task.batches import call
from autocut.task.splits import spread
from autocut.task.task import evaluation_mode

_ROWS = 512
"""Of a batch so many rows count, and each position of a sequence is a row: all of them would take minutes in a large model."""
_JITTER = 1e-4
"""Weight of directions that the batches do not show, relative to the mean of those that they show."""


@pruners.register("low_rank")
def prune_low_rank(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Replace each linear layer by two thin ones that keep most of the variance of its outputs.

    A layer of weights (out, in) becomes in -> rank -> out, where rank is chosen so that about `ratio` of its weights are gone,
    rounded as `structured` rounds widths. The outputs on the given batches are projected on their first `rank` principal
    components; their mean stays exact. The layer that runs last, layers whose weights are shared, and layers whose weights another
    module reads (such as those of `nn.MultiheadAttention`) stay whole.

    Raises:
        InfeasibleRecipeError: No layer takes part, or the ratio removes no rank of any.

    References:
        Drone: Chen et al. 2021, https://proceedings.neurips.cc/paper/2021/hash/f56de5ef149cf0aedcc8f4797031e229-Abstract.html;
        Wang et al. 2024, SVD-LLM, https://arxiv.org/abs/2403.07378
    """
    pruned = copy.deepcopy(model)
    original = data.original or model
    names = _candidates(pruned, original, data)
    if not names:
        raise InfeasibleRecipeError("prune.method 'low_rank' needs linear layers before the last one, got none that it can replace")
    ranks = {name: _rank(original.get_submodule(name), ratio) for name in names}
    smaller = {name: rank for name, rank in ranks.items() if rank is not None and rank < _rank_now(pruned.get_submodule(name))}
    if not smaller:
        raise InfeasibleRecipeError(
            f"prune.ratio {ratio} removes no rank of {format_count(len(names), 'linear layer')} after rounding"
        )
    statistics = _statistics(pruned, list(smaller), data)
    for name, rank in smaller.items():
        replacement = _factored(_dense(pruned.get_submodule(name)), statistics[name], rank)
        _replace_if_it_runs(pruned, name, replacement, data)
    if all(isinstance(pruned.get_submodule(name), nn.Linear) for name in smaller):
        raise InfeasibleRecipeError("prune.method 'low_rank' needs linear layers that nothing but a call uses, got none")
    reestimate_batch_norm(pruned, data.batches)
    return Pruned(pruned)


@dataclass
class _Moments:
    """Sums over the examples of a layer's outputs, or of its inputs where there are fewer of those."""

    of_inputs: bool
    count: int
    total: Tensor
    squares: Tensor

    def add(self, rows: Tensor) -> None:
        rows = rows.detach().reshape(-1, rows.shape[-1])
        rows = rows[spread(len(rows), _ROWS)].double()
        self.count += len(rows)
        self.total += rows.sum(0)
        self.squares += rows.T @ rows

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        return self.squares / self.count - torch.outer(self.mean, self.mean)


def _candidates(model: nn.Module, original: nn.Module, data: PruneData) -> list[str]:
    """Return the names of the layers that may be replaced; some may be replaced already by an earlier cut."""
    last = last_to_run(original, data.inputs)
    owners = Counter(id(parameter) for _, parameter in original.named_parameters(remove_duplicate=False))
    linear = {
        name: module
        for name, module in original.named_modules()
        if type(module) is nn.Linear and module is not last and owners[id(module.weight)] == 1
    }
    # A module that is called twice has two kinds of inputs. One whose weight is read elsewhere is not called.
    called = Counter(calls(original, list(linear.values()), data.inputs))
    left = {name for name, _ in model.named_modules()}
    return [name for name, module in linear.items() if called[module] == 1 and name in left]


def _rank(layer: nn.Module, ratio: float) -> int | None:
    """Return the rank that leaves about `1 - ratio` of the layer's weights; None where rounding leaves it as it is."""
    rows, columns = layer.get_parameter("weight").shape
    full = rows * columns // (rows + columns)
    rank = kept_width(full, ratio) if full else 0
    return rank if 0 < rank < full else None


def _rank_now(layer: nn.Module) -> int:
    return len(next(layer.parameters())) if isinstance(layer, nn.Sequential) else min(layer.get_parameter("weight").shape)


def _dense(layer: nn.Module) -> nn.Linear:
    """Return the layer as one linear layer, whether or not an earlier cut has factored it."""
    if isinstance(layer, nn.Linear):
        return layer
    inner, outer = layer.children()
    weight, bias = outer.get_parameter("weight"), outer.get_parameter("bias")
    dense = nn.Linear(inner.get_parameter("weight").shape[1], len(weight), device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        dense.weight.copy_(weight @ inner.get_parameter("weight"))
        dense.bias.copy_(bias)
    return dense


@torch.no_grad()
def _statistics(model: nn.Module, names: list[str], data: PruneData) -> dict[str, _Moments]:
    moments: dict[str, _Moments] = {}
    hooks = []
    for name in names:
        layer = model.get_submodule(name)
        rows, columns = _dense(layer).weight.shape
        size, of_inputs = min(rows, columns), columns < rows
        device = next(layer.parameters()).device
        zeros = torch.zeros(size, size, dtype=torch.float64, device=device)
        seen = moments[name] = _Moments(of_inputs, 0, torch.zeros(size, dtype=torch.float64, device=device), zeros)

        def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, seen: _Moments = seen) -> None:
            seen.add(inputs[0] if seen.of_inputs else output)

        hooks.append(layer.register_forward_hook(record))
    try:
        with evaluation_mode(model):
            for inputs in [inputs for inputs, _ in data.batches] or [data.inputs]:
                call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return moments


@torch.no_grad()
def _factored(dense: nn.Linear, moments: _Moments, rank: int) -> nn.Sequential:
    """Return the layer whose outputs are those of `dense`, projected on their first `rank` principal components."""
    weight = dense.weight.double()
    bias = torch.zeros(len(weight), dtype=torch.float64, device=weight.device) if dense.bias is None else dense.bias.double()
    if moments.of_inputs:
        mean = weight @ moments.mean + bias
        values, vectors = torch.linalg.eigh(_regular(moments.covariance))
        root = weight @ vectors * values.clamp(min=0).sqrt()  # its outer product with itself is the covariance of the outputs
        axes = torch.linalg.eigh(root.T @ root)[1][:, -rank:]
        components = torch.linalg.qr(root @ axes)[0]
    else:
        mean = moments.mean
        unseen = weight @ weight.T
        scale = _JITTER * moments.covariance.trace() / unseen.trace().clamp(min=1e-30)
        components = torch.linalg.eigh(moments.covariance + scale * unseen)[1][:, -rank:]
    inner = nn.Linear(weight.shape[1], rank, bias=False, device=dense.weight.device, dtype=dense.weight.dtype)
    outer = nn.Linear(rank, len(weight), device=dense.weight.device, dtype=dense.weight.dtype)
    inner.weight.copy_(components.T @ weight)
    outer.weight.copy_(components)
    constant = mean - bias
    outer.bias.copy_(bias + constant - components @ (components.T @ constant))
    factored = nn.Sequential(inner, outer).train(dense.training)
    return factored.requires_grad_(dense.weight.requires_grad)


def _regular(covariance: Tensor) -> Tensor:
    return covariance + _JITTER * covariance.trace() / len(covariance) * torch.eye(len(covariance), dtype=covariance.dtype)


def _replace_if_it_runs(model: nn.Module, name: str, replacement: nn.Module, data: PruneData) -> None:
    """Put `replacement` in its place, unless some code of the model needs the layer itself, such as its weight."""
    parent, _, attribute = name.rpartition(".")
    owner, before = model.get_submodule(parent), model.get_submodule(name)
    setattr(owner, attribute, replacement)
    try:
        # Without hooks: where there are any, `nn.TransformerEncoderLayer` calls its layers, and else it reads their weights.
        with evaluation_mode(model), torch.no_grad():
            call(model, data.inputs)
    except TRACING_ERRORS:
        setattr(owner, attribute, before)
