"""Quantization-aware training for int8 dtypes."""

from __future__ import annotations

import torch
from torch import Tensor

from autocut.stages.train.registries import fake_quantizers

_TINY = torch.finfo(torch.float32).tiny


@fake_quantizers.register("none")
def fake_quantize_none(inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Train with the numbers as they are."""
    return inputs, weight


@fake_quantizers.register("int8")
def fake_quantize_int8(inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights of layers to int8 and their inputs to uint8 while training, so that the weights bear an int8 dtype.

    A weight, shape (outputs, ...), has a symmetric scale for each output; an input has one scale and one zero point, from its
    smallest to its largest number in the batch. Nothing is cut off, so every gradient passes.

    References:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """
    low, high = torch.aminmax(inputs.detach())
    low, high = low.clamp(max=0), high.clamp(min=0)  # zero, such as padding, must stay zero
    scale = ((high - low) / 255).clamp(min=_TINY)
    zero_point = (-low / scale).round().nan_to_num().clamp(0, 255).to(torch.int32)
    scales = (weight.detach().flatten(1).abs().amax(1) / 127).clamp(min=_TINY)
    zero_points = torch.zeros_like(scales, dtype=torch.int32)
    return (
        torch.fake_quantize_per_tensor_affine(inputs, scale, zero_point, 0, 255),
        torch.fake_quantize_per_channel_affine(weight, scales, zero_points, 0, -127, 127),
    )
