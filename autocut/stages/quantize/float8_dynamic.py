"""Float8 weights and activations, for the products of GPUs."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.stages.device import Device
from autocut.stages.quantize import quantizers
from autocut.stages.quantize.half_precision import convert_to_half, drop_unused
from autocut.task.batches import Inputs

_STORED = torch.float8_e4m3fn
_LARGEST = torch.finfo(_STORED).max
_SMALLEST = 1e-12  # of a range: an input that is zero has a scale too
_STEP = 16  # the kernel takes multiples of it


def _only_simulated() -> str:
    return "CPUs have no float8 instructions and only simulate them"


def _before_ada(device: Device) -> str | None:
    return device.below((8, 9), "float8 products")


@quantizers.register(
    "float8_dynamic",
    machine=_only_simulated,
    gpu=_before_ada,
    freezing=False,
    speedup=2.0,
)
def quantize_float8_dynamic(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:
    """Store linear weights as float8 and multiply in float8; the rest is as in bf16.

    A weight, shape (out_features, in_features), has one scale, and so has each input of its product, found while running: answers
    depend a little on what else is in the batch. Weights have 4 bits of exponent and 3 of fraction, sums are float32.

    Raises:
        InfeasibleRecipeError: `model` has no linear layer.
        CompilerError: the model cannot be exported.

    References:
        Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433
    """
    module = convert_to_half(model, calibration, "float8_dynamic", torch.bfloat16)
    if not isinstance(module, fx.GraphModule):
        raise TypeError(f"conversion must give a graph, got {type(module).__name__}")
    weights = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    stored: dict[int, tuple[str, str]] = {}
    for node in [node for node in module.graph.nodes if node.target is torch.ops.aten.linear.default]:
        weight = weights.get(str(node.args[1].target)) if node.args[1].op == "get_attr" else None
        if weight is None:
            continue
        if id(weight) not in stored:
            stored[id(weight)] = names = f"float8_{len(stored)}", f"float8_scale_{len(stored)}"
            for name, tensor in zip(names, _stored(weight.detach().float()), strict=True):
                module.register_buffer(name, tensor)
        _replace(module, node, weight, *stored[id(weight)])
    if not stored:
        raise InfeasibleRecipeError(
            "float8_dynamic must change at least one nn.Linear, but the model has none that it can", "use bf16"
        )
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    drop_unused(module)
    return module


def _stored(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the float8 numbers of `weight`, padded with zeros as the kernel needs it, and their scale."""
    scale = weight.abs().amax().clamp(min=_SMALLEST) / _LARGEST
    padded = functional.pad(weight / scale, (0, -weight.shape[1] % _STEP, 0, -weight.shape[0] % _STEP))
    return padded.to(_STORED), scale


def _replace(module: fx.GraphModule, node: fx.Node, weight: Tensor, numbers: str, scale: str) -> None:
    """Let `node`, a linear layer over `weight`, multiply the stored float8 numbers."""
    graph, aten = module.graph, torch.ops.aten
    bias = node.args[2] if len(node.args) > 2 else None
    rows, columns = weight.shape
    with graph.inserting_before(node):

        def call(target: Any, *arguments: Any) -> fx.Node:
            return graph.call_function(target, arguments)

        x = call(aten.to.dtype, call(aten.reshape.default, node.args[0], [-1, columns]), torch.float32)
        if missing := -columns % _STEP:
            x = call(aten.pad.default, x, [0, missing])
        range_ = call(aten.clamp.default, call(aten.amax.default, call(aten.abs.default, x)), _SMALLEST)
        of_x = call(aten.div.Tensor, range_, _LARGEST)
        x = call(aten.to.dtype, call(aten.div.Tensor, x, of_x), _STORED)
        transposed = call(aten.t.default, graph.get_attr(numbers))
        # The last two: no bias and no scale of the result.
        product = call(aten._scaled_mm.default, x, transposed, of_x, graph.get_attr(scale), None, None, torch.bfloat16)
        if rows % _STEP:
            product = call(aten.slice.Tensor, product, 1, 0, rows)
        if bias is not None:
            product = call(aten.add.Tensor, product, bias)
        sizes = call(operator.getitem, call(_shape, node.args[0]), slice(0, -1))
        node.replace_all_uses_with(call(_unflatten, product, sizes, rows))
    graph.erase_node(node)


def _shape(x: Tensor) -> torch.Size:
    return x.shape


def _unflatten(flat: Tensor, sizes: Sequence[int], width: int) -> Tensor:
    return flat.reshape(*sizes, width)
