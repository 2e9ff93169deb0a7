"""Whole blocks removed: a shallower model, faster on every kernel and at every batch size."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.counting import format_count
from autocut.errors import InfeasibleRecipeError
from autocut.stages.prune import Pruned, PruneData, pruners
from autocut.stages.prune.batch_norm import reestimate_batch_norm
from autocut.stages.prune.last_layer import refit_last_layer
from autocut.stages.prune.layers import TRACING_ERRORS
from autocut.task.batches import call
from autocut.task.task import evaluation_mode


@pruners.register("depth", version=2)
def prune_depth(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Remove the blocks that change their input least.

    A block is a child with layers of its own of an `nn.Sequential` or an `nn.ModuleList` with at least two children, whose output
    has the shape of its input: an encoder layer, a residual block without stride. Blocks are ranked by one minus the cosine
    similarity of input and output, averaged over the examples of the given batches. One block is always left. `ratio` counts
    blocks, not weights. The last linear layer is refitted on the given batches to answer as before.

    Raises:
        InfeasibleRecipeError: Fewer than two such blocks, a ratio that removes none, or a model that does not run without one.

    References:
        Men et al. 2024, ShortGPT, https://arxiv.org/abs/2403.03853
    """
    pruned = copy.deepcopy(model)
    influence = _influence(pruned, data)
    whole = len(influence) if data.original is None else len(_influence(data.original, data))
    if whole < 2:
        raise InfeasibleRecipeError(
            f"prune.method 'depth' needs at least two blocks that keep the shape of their input, got {whole}"
        )
    count = int(ratio * whole + 0.5) - (whole - len(influence))
    if count <= 0:
        raise InfeasibleRecipeError(f"prune.ratio {ratio} removes none of {format_count(whole, 'block')} after rounding")
    weakest = sorted(influence, key=lambda name: influence[name])[: min(count, len(influence) - 1)]
    wanted = _answer_shape(pruned, data)
    _remove(pruned, weakest)
    try:
        shape = _answer_shape(pruned, data)
    except TRACING_ERRORS as error:
        first = str(error).partition("\n")[0]
        raise InfeasibleRecipeError(f"the model does not run without {', '.join(sorted(weakest))}: {first}") from error
    if shape != wanted:
        raise InfeasibleRecipeError(f"without {', '.join(sorted(weakest))} the model answers in the shape {shape}, not {wanted}")
    reestimate_batch_norm(pruned, data.batches)
    refit_last_layer(pruned, model, data.batches)
    return Pruned(pruned)


@torch.no_grad()
def _influence(model: nn.Module, data: PruneData) -> dict[str, float]:
    """Return how much each block of `model` changes its input, by name: 0 for a block that changes nothing."""
    changes: dict[str, list[float]] = {}
    unfit: set[str] = set()
    hooks = []
    for name, block in _blocks(model).items():
        changes[name] = []

        def record(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, name: str = name) -> None:
            before, after = _first_tensor((*args, *kwargs.values())), _first_tensor(output)
            if before is None or after is None or before.shape != after.shape or not before.is_floating_point():
                unfit.add(name)
            else:
                similarity = functional.cosine_similarity(before.flatten(1), after.flatten(1), dim=1)
                changes[name].append(float(1 - similarity.mean()))

        hooks.append(block.register_forward_hook(record, with_kwargs=True))
    batches = [inputs for inputs, _ in data.batches] or [data.inputs]
    try:
        with evaluation_mode(model):
            for inputs in batches:
                call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    # A block that ran more often than the model is shared, and one that never ran is not part of the answer.
    return {name: sum(seen) / len(seen) for name, seen in changes.items() if name not in unfit and len(seen) == len(batches)}


def _blocks(model: nn.Module) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for name, container in model.named_modules():
        if type(container) in (nn.Sequential, nn.ModuleList) and len(list(container.children())) > 1:
            for child_name, child in container.named_children():
                if next(child.parameters(), None) is not None and next(child.children(), None) is not None:
                    found[f"{name}.{child_name}".lstrip(".")] = child
    # The blocks of a block go with it.
    return {name: block for name, block in found.items() if not any(name.startswith(f"{other}.") for other in found)}


def _first_tensor(values: Any) -> Tensor | None:
    if isinstance(values, Tensor):
        return values
    if isinstance(values, Mapping):
        values = tuple(values.values())
    if not isinstance(values, tuple | list):
        return None
    return next((value for value in map(_first_tensor, values[:1]) if value is not None), None)


def _remove(model: nn.Module, names: list[str]) -> None:
    for parent in {name.rpartition(".")[0] for name in names}:
        container = model.get_submodule(parent)
        positions = [at for at, (child, _) in enumerate(container.named_children()) if f"{parent}.{child}".lstrip(".") in names]
        for at in reversed(positions):
            del container[at]  # type: ignore[operator]


@torch.no_grad()
def _answer_shape(model: nn.Module, data: PruneData) -> tuple[int, ...]:
    with evaluation_mode(model):
        return tuple(call(model, data.inputs).shape)
