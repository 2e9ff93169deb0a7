"""Channel removal through torch-pruning's dependency graph, with every group checked.

torch-pruning traces which channels must go together. It takes an operation that it does not know for an element-wise one, and can
be wrong without an error: an `F.pad` over channels shifts them, attention written with `view` splits them. So each group is
removed under a check: silence the channels (set the weights that read them to zero), run, remove the channels, run again. Equal
outputs mean that exactly these channels went. A group that fails is left whole, and the work starts again without it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from autocut.errors import InfeasibleRecipeError
from autocut.stages.prune.attention import with_linear_layers
from autocut.stages.prune.channel_padding import map_channel_padding
from autocut.stages.prune.layers import TRACING_ERRORS, answer, first_line, is_close
from autocut.stages.prune.unknown_widths import PatientGraph
from autocut.task.batches import Inputs, call, take
from autocut.task.task import evaluation_mode

Importance = Callable[[Any], Tensor | None]

EXAMPLES = 4
MIXES_CHANNELS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.MultiheadAttention, nn.RNNBase)
"""Layers whose output depends on the number of channels. Silenced differs from removed there, so only shapes are checked."""


@dataclass(frozen=True)
class _Cut:
    """What one group loses: channel `indices` of the output of `root`."""

    root: nn.Module
    prune: Callable[..., Any]
    indices: list[int]


class _BrokenGroupError(Exception):
    """Removing a group changed more than its channels; carries the names of the layers that the group narrows."""

    def __init__(self, layers: frozenset[str], reason: str) -> None:
        super().__init__(reason)
        self.layers = layers


def prune_channels(
    model: nn.Module, ratio: float, inputs: Inputs, importance: Callable[[nn.Module], Importance], original: nn.Module | None = None
) -> nn.Module:
    """Return a copy of `model` without the least important channels of each group that is safe to cut.

    Args:
        model: Not modified.
        ratio: Fraction of each group's channels to remove, rounded to a friendly width.
        inputs: Example batch; a few rows are used.
        importance: Given a copy in which every parameter has gradients, returns a torch-pruning importance.
        original: Where `model` was cut before, the model before its first cut: `ratio` counts from its widths, so that the result
            is as wide as if it had been cut once.

    Returns:
        The smaller copy. Parameters that several layers share are still one where those layers lost the same channels of them.

    Raises:
        InfeasibleRecipeError: Nothing was removed; the message says whether this is due to the ratio or to the model.
    """
    example = take(inputs, EXAMPLES)
    model, original = with_linear_layers(model), with_linear_layers(original or model)
    ranked = copy.deepcopy(model).requires_grad_(True)  # the graph is traced through autograd
    rank = importance(ranked)
    excluded: frozenset[str] = frozenset()
    reasons: list[str] = []
    while True:
        pruned = _copy_with_gradients(ranked)
        try:
            cuts = _prune_in_place(pruned, ratio, example, rank, excluded, original, reasons)
        except _BrokenGroupError as broken:
            excluded |= broken.layers
            reasons.append(str(broken))
            continue
        if cuts == 0:
            because = f"; left whole: {'; '.join(dict.fromkeys(reasons))}" if reasons else ""
            raise InfeasibleRecipeError(f"prune.ratio {ratio} removes no channel after rounding{because}")
        for name, parameter in pruned.named_parameters():
            parameter.grad = None
            parameter.requires_grad_(model.get_parameter(name).requires_grad)
        _tie_again(pruned, model)
        return pruned


def _tie_again(pruned: nn.Module, model: nn.Module) -> None:
    """Share the parameters again that layers share in `model`: torch-pruning gives each layer a tensor of its own.

    Layers that lost different channels can no longer share one, and keep their own.
    """
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = pruned.get_parameter(owners.setdefault(id(parameter), name))
        if owners[id(parameter)] != name and torch.equal(first, pruned.get_parameter(name)):
            module, _, attribute = name.rpartition(".")
            setattr(pruned.get_submodule(module), attribute, first)


def _copy_with_gradients(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    for ours, theirs in zip(copied.parameters(), model.parameters(), strict=True):
        ours.grad = None if theirs.grad is None else theirs.grad.clone()
    return copied


def _prune_in_place(
    model: nn.Module, ratio: float, example: Inputs, rank: Importance, excluded: frozenset[str], original: nn.Module,
    reasons: list[str],
) -> int:  # fmt: skip
    """Prune `model` and return the number of groups cut. `reasons` gets why layers were left whole."""
    with evaluation_mode(model):
        graph = _trace(model, example)
        names = {module: name for name, module in model.named_modules()}
        ignored = [module for module, name in names.items() if name in excluded]
        cuts = list(_plan(graph, ratio, rank, ignored, names, original))
        reasons += [f"{names[layer]}: what depends on its channels has no end" for layer in graph.endless]
        for cut in cuts:
            _cut_and_check(model, graph, cut, example, names)
    return len(cuts)


def _trace(model: nn.Module, example: Inputs) -> Any:
    """Build the dependency graph, narrowest layers first, with channel padding understood."""
    graph = PatientGraph()
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Without forward_fn, torch-pruning 1.6 tries model(*inputs) first, which feeds a tensor row by row.
            graph.build_dependency(model, example_inputs=example, forward_fn=call, verbose=False)
    except TRACING_ERRORS as error:
        raise InfeasibleRecipeError(f"the model's dependency graph cannot be traced: {first_line(error)}") from error
    map_channel_padding(graph)
    # Channels added by padding cannot be removed, so a group must be entered where it is narrowest: before the padding.
    graph.module2node = dict(sorted(graph.module2node.items(), key=lambda item: _width(graph, item[0])))
    return graph


def _width(graph: Any, module: Any) -> int:
    pruner = graph.get_pruner_of_module(module)
    return (pruner.get_out_channels(module) or 0) if isinstance(module, _ConvNd | nn.Linear) else 0


def _plan(
    graph: Any, ratio: float, rank: Importance, ignored: list[nn.Module], names: dict[nn.Module, str], original: nn.Module
) -> Iterator[_Cut]:
    """Choose what each group loses. Everything is ranked before anything is removed."""
    for group in graph.get_all_groups(ignored_layers=ignored, root_module_types=(_ConvNd, nn.Linear)):
        if len(group) == 0:
            continue  # one of `graph.endless`
        try:
            scores = rank(group)
        except TRACING_ERRORS as error:
            root = names[group[0].dep.target.module]
            raise _BrokenGroupError(_narrowed_layers(graph, group, names), f"{root}: {first_line(error)}") from error
        if scores is None:
            continue
        blocks = max(_channel_blocks(graph, dependency) for dependency, _ in group)
        width = len(scores) // blocks
        whole = _outputs(original.get_submodule(names[group[0].dep.target.module])) // blocks
        count = width - kept_width(whole, ratio)
        if count <= 0 or len(scores) % blocks:
            continue
        # Blocks (heads, groups of a convolution) lose the same channels each, so that they stay of equal width.
        chosen = torch.argsort(scores.view(blocks, width).mean(0), stable=True)[:count].tolist()
        indices = sorted(block * width + index for block in range(blocks) for index in chosen)
        yield _Cut(group[0].dep.target.module, group[0].dep.handler, indices)


def _outputs(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def kept_width(width: int, ratio: float) -> int:
    """Round the channels left of `width` after removing about `ratio`.

    To the nearest multiple of 8 from 64 channels on, of 4 from 32, of 2 from 16. At least one multiple is left. A multiple of 8
    fills a vector register; a coarse multiple would leave narrow layers uncut.
    """
    multiple = 1
    while multiple < 8 and multiple * 16 <= width:
        multiple *= 2
    return min(width, multiple * max(1, int(width * (1 - ratio) / multiple + 0.5)))


def _channel_blocks(graph: Any, dependency: Any) -> int:
    module = dependency.target.module
    if isinstance(module, nn.MultiheadAttention):
        return int(module.num_heads)
    if isinstance(module, _ConvNd) and module.groups == module.out_channels:
        return 1
    pruner = graph.get_pruner_of_module(module)
    if graph.is_out_channel_pruning_fn(dependency.handler):
        return int(pruner.get_out_channel_groups(module))
    return int(pruner.get_in_channel_groups(module))


def _cut_and_check(model: nn.Module, graph: Any, cut: _Cut, example: Inputs, names: dict[nn.Module, str]) -> None:
    """Remove one group's channels.

    Raises:
        _BrokenGroupError: The result does not run, changes the output's shape, or is not the model with those channels silenced.
    """
    group = graph.get_pruning_group(cut.root, cut.prune, cut.indices)
    layers = _narrowed_layers(graph, group, names)
    if _lost(graph, group, cut.root) > len(cut.indices):  # halves of a `chunk`, for example
        raise _BrokenGroupError(layers, f"{names[cut.root]}: its channels are coupled with one another")
    try:
        comparable = _silence(graph, group)
        silenced = answer(model, example)
        if not graph.check_pruning_group(group):
            raise _BrokenGroupError(layers, f"{names[cut.root]}: nothing would be left of a coupled layer")
        group.prune()
        removed = answer(model, example)
    except TRACING_ERRORS as error:
        raise _BrokenGroupError(layers, f"{names[cut.root]}: {first_line(error)}") from error
    if removed.shape != silenced.shape:
        raise _BrokenGroupError(layers, f"{names[cut.root]}: it is the model's output")
    if comparable and not is_close(removed, silenced):
        raise _BrokenGroupError(layers, f"{names[cut.root]}: removing its channels changes others")


def _lost(graph: Any, group: Any, layer: nn.Module) -> int:
    """Number of outputs that `layer` would lose with `group`."""
    items = [(item, indices) for item, indices in group if item.target.module is layer]
    return len({index for item, indices in items if graph.is_out_channel_pruning_fn(item.handler) for index in indices})


def _narrowed_layers(graph: Any, group: Any, names: dict[nn.Module, str]) -> frozenset[str]:
    """Names of the layers that lose outputs. A search that leaves them out does not find the group again."""
    narrowed = (item.target.module for item, _ in group if graph.is_out_channel_pruning_fn(item.handler))
    return frozenset(names[module] for module in narrowed if isinstance(module, _ConvNd | nn.Linear))


@torch.no_grad()
def _silence(graph: Any, group: Any) -> bool:
    """Set to zero the weights that write and read the group's channels; return False where zero differs from removed."""
    comparable = True
    for dependency, indices in group:
        module = dependency.target.module
        if isinstance(module, MIXES_CHANNELS):
            comparable = False
        elif isinstance(module, _ConvNd | nn.Linear):
            _silence_layer(module, indices, output=graph.is_out_channel_pruning_fn(dependency.handler))
        elif isinstance(module, _BatchNorm) and module.affine:
            module.weight[indices] = 0
            module.bias[indices] = 0
    return comparable


def _silence_layer(layer: _ConvNd | nn.Linear, indices: list[int], *, output: bool) -> None:
    if output:
        if layer.bias is not None:
            layer.bias[indices] = 0
        layer.weight[(slice(None), indices) if isinstance(layer, _ConvTransposeNd) else indices] = 0
    elif not isinstance(layer, _ConvNd) or layer.groups == 1:
        layer.weight[indices if isinstance(layer, _ConvTransposeNd) else (slice(None), indices)] = 0
