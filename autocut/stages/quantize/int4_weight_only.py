"""Int4 weights, two in a byte."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.stages.graph import export_model, free_dimensions
from autocut.stages.quantize import quantizers
from autocut.stages.quantize.grouped import LEVELS, round_in_groups
from autocut.stages.quantize.half_precision import drop_unused
from autocut.stages.quantize.moments import moments_of_graph
from autocut.task.batches import Inputs

GROUP = 32
"""So many weights of a row share a scale. The kernel takes no fewer."""
_MIDDLE = 8  # the kernel counts from here
_ROWS = 16  # the kernel takes multiples of it
_LINEAR = torch.ops.aten.linear.default


def _other_kernel() -> str | None:
    # The operator of torch (2.13) that computes with packed int4 has kernels for these alone; elsewhere it is a loop in plain C++.
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        return None
    return "torch has a kernel for packed int4 weights on CPUs with AVX2 or AVX512 alone"


@quantizers.register("int4_weight_only", version=2, machine=_other_kernel, freezing=False, output_tolerance=5e-2)
def quantize_int4_weight_only(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:
    """Store linear weights as int4, two in a byte, and multiply in bfloat16.

    Each 32 weights of a row, shape (out_features, in_features), share a scale and an offset in bfloat16: another bit a weight.
    Weights make up for one another's rounding (`round_in_groups`). The kernel for float32 is 15 to 100 times slower than a float
    product (torch 2.13), hence bfloat16. Layers other than linear ones, and those that share their weight with an embedding, keep
    their dtype. This cuts the file and the memory that weights need; speed comes only where memory traffic was the limit.

    Raises:
        InfeasibleRecipeError: `model` has no linear layer.
        CompilerError: the model cannot be exported.
    """
    module = export_model(copy.deepcopy(model).eval(), calibration[0], free_dimensions(model)).module(check_guards=False)
    layers = _layers(module)
    if not layers:
        others = " or ".join(method.name for method in quantizers if method.options.convolutions)
        raise InfeasibleRecipeError(
            "int4_weight_only must change at least one nn.Linear, but the model has none that it can",
            f"use {others}, which changes convolutions too",
        )
    for index, (weight, moments) in enumerate(_by_weight(layers, moments_of_graph(module, list(layers), calibration))):
        names = f"int4_{index}", f"scales_{index}"
        for name, tensor in zip(names, _pack(weight.detach().float(), moments), strict=True):
            module.register_buffer(name, tensor)
        for node in [node for node, other in layers.items() if other is weight]:
            _replace(module, node, weight, *names)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    drop_unused(module)
    return module


def _layers(module: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """The linear operators of a graph with the weight of each. Two of them may share one.

    A weight that something else reads too, such as an embedding, is left out: it stays in the file as it is, so that an int4 copy
    would make the file larger.
    """
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    reads = [node for node in module.graph.nodes if node.op == "get_attr" and str(node.target) in tensors]
    found = {
        user: tensors[str(read.target)] for read in reads for user in read.users if user.target is _LINEAR and user.args[1] is read
    }
    others = {id(tensors[str(read.target)]) for read in reads if not read.users.keys() <= found.keys()}
    return {node: found[node] for node in module.graph.nodes if node in found and id(found[node]) not in others}


def _by_weight(layers: Mapping[fx.Node, Tensor], moments: Mapping[fx.Node, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each weight with the moments of all layers that it belongs to."""
    weights = {id(weight): weight for weight in layers.values()}
    sums = dict.fromkeys(weights, torch.zeros(()))
    for node, weight in layers.items():
        source = node.args[0]
        if isinstance(source, fx.Node):
            sums[id(weight)] = sums[id(weight)] + moments[source]
    return [(weight, sums[key]) for key, weight in weights.items()]


def _pack(weight: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return four-bit numbers, two in a byte, and scale and offset of each group. Zeros fill up the last group."""
    weight = functional.pad(weight, (0, 0, 0, -weight.shape[0] % _ROWS))
    rounded = round_in_groups(weight, moments, _grid, GROUP)
    scales = torch.stack([rounded.scale.squeeze(2).T, (rounded.zero + _MIDDLE * rounded.scale).squeeze(2).T], dim=2)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(rounded.numbers.to(torch.int32).flatten(1), 1)
    return packed, scales.contiguous().to(torch.bfloat16)


def _grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and the weight in the middle of the range are stored in bfloat16."""
    scale = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny).to(torch.bfloat16).float()
    return scale, (low + _MIDDLE * scale).to(torch.bfloat16).float() - _MIDDLE * scale


def _replace(module: fx.GraphModule, node: fx.Node, weight: Tensor, packed: str, scales: str) -> None:
    """Let `node`, a linear layer over `weight`, compute with the packed weights."""
    graph, aten = module.graph, torch.ops.aten
    x, bias = node.args[0], node.args[2] if len(node.args) > 2 else None
    rows, columns = weight.shape
    with graph.inserting_before(node):
        if missing := -columns % GROUP:
            x = graph.call_function(aten.pad.default, (x, [0, missing]))
        flat = graph.call_function(aten.reshape.default, (x, [-1, columns + missing]))
        flat = graph.call_function(aten.to.dtype, (graph.call_function(aten.contiguous.default, (flat,)), torch.bfloat16))
        arguments = (flat, graph.get_attr(packed), GROUP, graph.get_attr(scales))
        product = graph.call_function(aten._weight_int4pack_mm_for_cpu.default, arguments)
        product = graph.call_function(aten.to.dtype, (product, torch.float32))
        if rows % _ROWS:
            product = graph.call_function(aten.slice.Tensor, (product, 1, 0, rows))
        if bias is not None:
            product = graph.call_function(aten.add.Tensor, (product, bias))
        sizes = graph.call_function(operator.getitem, (graph.call_function(_shape, (node.args[0],)), slice(0, -1)))
        node.replace_all_uses_with(graph.call_function(_unflatten, (product, sizes, rows)))
    graph.erase_node(node)


def _shape(x: Tensor) -> torch.Size:
    return x.shape


def _unflatten(flat: Tensor, sizes: Sequence[int], width: int) -> Tensor:
    return flat.reshape(*sizes, width)
