"""Half precision with more digits and less range than bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autocut.stages.quantize import any_gpu, quantizers
from autocut.stages.quantize.half_precision import convert_to_half
from autocut.task.batches import Inputs


def _only_simulated() -> str | None:
    # Only a private operator of torch knows this (2.13). oneDNN computes products in float16 with AVX512-FP16, AMX-FP16 or on Arm.
    if torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return None
    return "this CPU has no float16 instructions and only simulates them"


def _guessed_speedup() -> float:
    # AMX for bfloat16 alone is no help: on such a processor (Intel Xeon, family 6 model 207, 2026-12-01, one thread, torch 2.13)
    # linear layers took as long in float16 as in float32, and convolutions up to 1.9 times as long. Where there is AMX-FP16 (167),
    # BERT-base was 3.4 to 4.8 times as fast. Only a private operator of torch tells them apart.
    return 1.6 if torch.cpu._is_amx_fp16_supported() else 1.0


@quantizers.register(
    "fp16",
    no_kernel={"onnxruntime": "ONNX Runtime has no float16 kernels for x86-64 CPUs: it casts back to float32"},
    machine=_only_simulated,
    gpu=any_gpu,
    output_tolerance=1e-2,
    convolutions=True,
    seconds_per_100mb=2.4,
    speedup=_guessed_speedup(),
)
def quantize_fp16(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:
    """Compute products and convolutions in float16: 5 bits of exponent, 10 of fraction, nothing above 65504.

    Their weights are stored in float16. An operator whose numbers leave that range on the calibration batches stays in float32. So
    does what the model makes in float32, and so do its inputs and outputs.

    Raises:
        InfeasibleRecipeError: `model` has no product or convolution.
        CompilerError: the model cannot be exported.

    References:
        Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740
    """
    return convert_to_half(model, calibration, "fp16", torch.float16)
