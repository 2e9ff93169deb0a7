"""Half precision with the range of float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autocut.stages.device import Device
from autocut.stages.quantize import quantizers
from autocut.stages.quantize.half_precision import convert_to_half
from autocut.task.batches import Inputs


def _only_simulated() -> str | None:
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_sve_supported")
    # Only private functions of torch know this, and not every version has all of them (2.13).
    if any(getattr(torch.cpu, test, lambda: False)() for test in tests):
        return None
    return "this CPU has no bfloat16 instructions and only simulates them"


def _before_ampere(device: Device) -> str | None:
    return device.below((8, 0), "bfloat16")


@quantizers.register(
    "bf16",
    version=2,
    no_kernel={"onnxruntime": "ONNX Runtime has no bfloat16 kernels for CPUs"},
    machine=_only_simulated,
    gpu=_before_ampere,
    output_tolerance=2e-2,
    convolutions=True,
    seconds_per_100mb=2.4,
)
def quantize_bf16(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:
    """Compute products and convolutions in bfloat16: 8 bits of exponent, 7 of fraction.

    Their weights are stored in bfloat16. What the model makes in float32 stays so, and so do its inputs and outputs.

    Raises:
        InfeasibleRecipeError: `model` has no product or convolution.
        CompilerError: the model cannot be exported.

    References:
        Kalamkar et al. 2019, https://arxiv.org/abs/1905.12322
        https://docs.pytorch.org/docs/stable/amp.html (the rules)
    """
    return convert_to_half(model, calibration, "bf16", torch.bfloat16)
