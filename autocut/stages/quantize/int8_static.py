"""Int8 weights and activations, with scales from calibration data."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import fx, nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages import processor
from autocut.stages.calibration import affordable, numbers_of
from autocut.stages.compilers import quietly, translated
from autocut.stages.graph import export_model, free_dimensions
from autocut.stages.quantize import quantizers
from autocut.task.batches import Inputs, call


@quantizers.register(
    "int8_static",
    version=2,
    no_kernel={"eager": "eager runs a quantized graph by a reference implementation, no kernel"},
    context=processor.int8_range,
    accelerated=processor.sums_int8_in_32_bits,
    convolutions=True,
)
def quantize_int8_static(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:
    """Quantize weights and activations of convolutions and linear layers to int8 with scales fixed beforehand.

    Activations get one scale per tensor, found by a histogram over the calibration batches; weights one per output channel.
    The other operators (softmax, normalization, embeddings) stay float. The result is a graph of quantize and dequantize operators
    around float ones. It is fast only after Inductor has fused them to int8 kernels.

    Raises:
        InfeasibleRecipeError: no operator of the model was quantized.
        CompilerError: the model cannot be exported or quantized.

    References:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877
        https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quant_x86_inductor.html
    """
    exported = export_model(copy.deepcopy(model).eval(), calibration[0], free_dimensions(model)).module()
    with translated("torchao"), quietly(), torch.no_grad():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=not processor.sums_int8_in_32_bits()))
        numbers = numbers_of(exported.graph)
        observed = prepare_pt2e(exported, quantizer)
        for inputs in affordable(calibration, numbers):
            call(observed, inputs)
        converted: fx.GraphModule = convert_pt2e(observed)
    if not any("dequantize" in str(node.target) for node in converted.graph.nodes):
        raise InfeasibleRecipeError(
            "int8_static must change at least one layer, but the model has no convolution or linear layer that it can"
        )
    return _without_unused(converted)


def _without_unused(module: fx.GraphModule) -> fx.GraphModule:
    """Drop the float weights that conversion leaves behind. Nothing reads them, but they would be saved."""
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*module.named_parameters(), *module.named_buffers()) if name not in used]:
        owner, _, attribute = name.rpartition(".")
        delattr(module.get_submodule(owner), attribute)
    return module
