"""`F.pad` over channels, explained to torch-pruning's dependency graph.

The option-A shortcut of the CIFAR ResNets pads channels: channel i becomes channel i + offset. torch-pruning 1.6.1 takes the
padding for an element-wise operation. So it removes the wrong channels after the padding (the model runs, and is wrong) and guesses
wrong widths there. This can go when torch-pruning knows ConstantPadNd.
"""

from __future__ import annotations

from typing import Any

import torch_pruning
from torch import nn


class _ChannelPadding(nn.Module):
    """Stands in the graph for one padding; `width` counts the channels after it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width


class _ChannelPaddingPruner(torch_pruning.pruner.function.BasePruningFunc):  # type: ignore[misc]
    """Has no weights to prune, but knows how wide it is."""

    TARGET_MODULES = _ChannelPadding

    def prune_out_channels(self, layer: _ChannelPadding, idxs: list[int]) -> _ChannelPadding:
        layer.width -= len(idxs)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: _ChannelPadding) -> int:
        return layer.width

    get_in_channels = get_out_channels


def map_channel_padding(graph: Any) -> None:
    """Give every padding of channels in `graph` its offset and its width. Padding of other dimensions is left alone."""
    pruner = _ChannelPaddingPruner()
    graph.register_customized_layer(_ChannelPadding, pruner)
    padded = [(node, *_channel_padding(node.grad_fn)) for node in graph.module2node.values()]
    shifts = [(node, before, after, width) for node, before, after, width in padded if before or after]
    for node, _, _, width in shifts:
        _replace(graph, node, pruner, width)
    if shifts:
        _forget_mappings(graph)
    for node, before, after, width in shifts:
        _shift(node, before, width - after)


def _replace(graph: Any, node: Any, pruner: Any, width: int) -> None:
    del graph.module2node[node.module]
    node.module = _ChannelPadding(width)
    graph.module2node[node.module] = node
    for dependency in node.dependencies:
        dependency.trigger = pruner.prune_out_channels
    for neighbour in (*node.inputs, *node.outputs):
        for dependency in neighbour.dependencies:
            if dependency.target is node:
                dependency.handler = pruner.prune_out_channels


def _shift(node: Any, first: int, end: int) -> None:
    """Map channels to [first, end) at the input, and back at the output; the added channels of zeros map to nothing."""
    mapping = torch_pruning.dependency.index_mapping._ConcatIndexMapping
    for source in node.inputs:
        for dependency in source.dependencies:
            if dependency.target is node:
                dependency.index_mapping[1] = mapping(offset=(first, end), reverse=False)
        for dependency in node.dependencies:
            if dependency.target is source:
                dependency.index_mapping[1] = mapping(offset=(first, end), reverse=True)


def _forget_mappings(graph: Any) -> None:
    """Drop mappings that were guessed from wrong widths, such as the stride of a flatten. Each group computes them anew."""
    for node in graph.module2node.values():
        for dependency in node.dependencies:
            dependency.index_mapping = [None, None]


def _channel_padding(grad_fn: Any) -> tuple[int, int, int]:
    """Return the padding before and after dimension 1, and its width with both; zeros for anything else.

    Sequences (3 dimensions) have channels last and are left alone.
    """
    if not type(grad_fn).__name__.startswith("ConstantPadNd"):
        return 0, 0, 0
    shape, padding = grad_fn._input_metadata[0].shape, grad_fn._saved_pad  # counted from the last dimension
    start = 2 * (len(shape) - 2)
    if len(shape) == 3 or len(padding) < start + 2:
        return 0, 0, 0
    return padding[start], padding[start + 1], int(shape[1])
