"""Int4 weights, two in a byte."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.stages.graph import export_model, free_dimensions
from autocut.stages.quantize import quantizers
from autocut.stages.quantize.half_precision import drop_unused
from autocut.task.batches import Inputs

GROUP = 32
"""So many weights of a row share a scale."""
_LEVELS = 15
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of a group's range that are tried: cutting off the largest weights may round all others better."""
_MIDDLE = 8  # the kernel counts from here
_ROWS = 16  # the kernel takes multiples of it


def _other_kernel() -> str | None:
    # The operator of torch (2.13) that computes with packed int4 has kernels for these alone; elsewhere it is a loop in plain C++.
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        return None
    return "torch has a kernel for packed int4 weights on CPUs with AVX2 or AVX512 alone"


@quantizers.register("int4_weight_only", machine=_other_kernel, freezing=False, output_tolerance=5e-2)
def quantize_int4_weight_only(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:
    """Store linear weights as int4, two in a byte, and multiply in bfloat16.

    Each 32 weights of a row, shape (out_features, in_features), share a scale and an offset in bfloat16: another bit a weight. The
    kernel for float32 is 15 to 100 times slower than a float product (torch 2.13), hence bfloat16. Layers other than linear ones
    keep their dtype. This cuts the file and the memory that weights need; speed comes only where memory traffic was the limit.

    Raises:
        InfeasibleRecipeError: `model` has no linear layer.
        CompilerError: the model cannot be exported.
    """
    module = export_model(copy.deepcopy(model).eval(), calibration[0], free_dimensions(model)).module(check_guards=False)
    weights = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    stored: dict[int, tuple[str, str]] = {}
    for node in [node for node in module.graph.nodes if node.target is torch.ops.aten.linear.default]:
        weight = weights.get(str(node.args[1].target)) if node.args[1].op == "get_attr" else None
        if weight is None:
            continue
        if id(weight) not in stored:
            stored[id(weight)] = names = f"int4_{len(stored)}", f"scales_{len(stored)}"
            for name, tensor in zip(names, _pack(weight.detach().float()), strict=True):
                module.register_buffer(name, tensor)
        _replace(module, node, weight, *stored[id(weight)])
    if not stored:
        others = " or ".join(method.name for method in quantizers if method.options.convolutions)
        raise InfeasibleRecipeError(
            "int4_weight_only must change at least one nn.Linear, but the model has none that it can",
            f"use {others}, which changes convolutions too",
        )
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    drop_unused(module)
    return module


def _pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return four-bit numbers, two in a byte, and scale and offset of each group. Zeros fill up the last group."""
    weight = functional.pad(weight, (0, -weight.shape[1] % GROUP, 0, -weight.shape[0] % _ROWS))
    groups = weight.reshape(weight.shape[0], -1, GROUP)
    low, high = groups.amin(2, keepdim=True).clamp(max=0), groups.amax(2, keepdim=True).clamp(min=0)
    tried = [_rounded(groups, low * share, high * share) for share in _SHARES]
    best = torch.stack([error for *_, error in tried]).argmin(0, keepdim=True)
    numbers, scale, offset = (torch.stack(parts).take_along_dim(best, 0)[0] for parts in list(zip(*tried, strict=True))[:3])
    scales = torch.stack([scale.squeeze(2).T, offset.squeeze(2).T], dim=2).contiguous().to(torch.bfloat16)
    numbers = numbers.to(torch.int32).flatten(1)
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1), scales


def _rounded(groups: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return numbers, scale and offset for a range, and the squared error of each group."""
    scale = ((high - low) / _LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    numbers = ((groups - low) / scale).round().clamp(0, _LEVELS)
    error = (numbers * scale + low - groups).square().sum(2, keepdim=True)
    return numbers, scale, low + _MIDDLE * scale, error


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
