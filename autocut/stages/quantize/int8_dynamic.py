"""Int8 weights, and activations whose scale is found while running."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from autocut.stages import processor
from autocut.stages.compilers import quietly
from autocut.stages.quantize import quantizers
from autocut.stages.quantize.linear_layers import quantize_linear_layers
from autocut.task.batches import Inputs


@quantizers.register(
    "int8_dynamic",
    version=2,
    accelerated=processor.sums_int8_in_32_bits,
    no_kernel={"eager": "eager runs a quantized graph by a reference implementation, no kernel"},
)
def quantize_int8_dynamic(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:  # noqa: ARG001
    """Store linear weights as int8 and quantize activations while running.

    Weights, shape (out_features, in_features), get symmetric float scales of shape (out_features, 1), activations one per token.
    Layers other than nn.Linear keep their dtype, so a convolutional network changes in its last layer only and gains little.

    Raises:
        InfeasibleRecipeError: `model` has no nn.Linear that torchao quantizes (it skips the one inside nn.MultiheadAttention).

    References:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """
    with quietly():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    # torchao would otherwise set global options of Inductor that autocut sets itself.
    return quantize_linear_layers(model, "int8_dynamic", Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
