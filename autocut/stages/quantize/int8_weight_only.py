"""Int8 weights, float everything else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from autocut.stages.compilers import quietly
from autocut.stages.quantize import any_gpu, quantizers
from autocut.stages.quantize.linear_layers import quantize_linear_layers
from autocut.task.batches import Inputs


@quantizers.register(
    "int8_weight_only",
    version=2,
    no_kernel={"eager": "eager turns int8 weights back into floats on every call, no kernel"},
    gpu=any_gpu,
    freezing=False,
)
def quantize_int8_weight_only(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:  # noqa: ARG001
    """Store linear weights as int8 and compute in float.

    Weights get scales as in `int8_dynamic`. Layers other than nn.Linear keep their dtype. This cuts the file and the memory that
    weights need; the arithmetic stays float, so speed comes only where memory traffic was the limit.

    Raises:
        InfeasibleRecipeError: `model` has no nn.Linear that torchao quantizes (it skips the one inside nn.MultiheadAttention).
    """
    with quietly():
        from torchao.quantization import Int8WeightOnlyConfig

    # torchao would otherwise set global options of Inductor that autocut sets itself.
    return quantize_linear_layers(model, "int8_weight_only", Int8WeightOnlyConfig(set_inductor_config=False))
