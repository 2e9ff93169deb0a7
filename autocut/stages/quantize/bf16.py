"""Half precision with the range of float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages.quantize import quantizers
from autocut.task.batches import Inputs, call, transform


def _only_simulated() -> str | None:
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_sve_supported")
    # Only private functions of torch know this, and not every version has all of them (2.13).
    if any(getattr(torch.cpu, test, lambda: False)() for test in tests):
        return None
    return "this CPU has no bfloat16 instructions and only simulates them"


@quantizers.register(
    "bf16",
    no_kernel={"onnxruntime": "ONNX Runtime has no bfloat16 kernels for CPUs"},
    machine=_only_simulated,
    output_tolerance=2e-2,
    convolutions=True,
    speedup=1.6,
)
def quantize_bf16(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:  # noqa: ARG001
    """Store and compute in bfloat16: 8 bits of exponent, 7 of fraction.

    Every floating parameter, buffer and input changes; integers do not. What the model's own code creates in float32 stays so.
    The result takes and gives the model's own dtype, with a bfloat16 copy inside.

    Raises:
        InfeasibleRecipeError: `model` has no floating parameter.

    References:
        Kalamkar et al. 2019, https://arxiv.org/abs/1905.12322
    """
    if not any(parameter.is_floating_point() for parameter in model.parameters()):
        raise InfeasibleRecipeError("bf16 must change at least one parameter, but the model has none in floating point")
    return _InBfloat16(copy.deepcopy(model).eval().to(torch.bfloat16)).eval()


class _InBfloat16(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *arguments: Tensor, **named: Tensor) -> Tensor:
        inputs: Inputs = named or arguments
        return call(self.model, transform(inputs, _narrow)).float()


def _narrow(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
