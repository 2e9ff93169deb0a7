"""Quantization-aware training for int4 weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autocut.stages.train.registries import fake_quantizers

_GROUP, _LEVELS = 32, 15


@fake_quantizers.register("int4")
def fake_quantize_int4(inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round linear weights to int4 while training, each 32 weights of a row with a scale of their own.

    A weight has shape (outputs, inputs). Convolutions keep their weights, as they do in the dtype. Gradients pass unchanged.

    References:
        Liu et al. 2023, LLM-QAT, https://arxiv.org/abs/2305.17888
    """
    if weight.dim() != 2:
        return inputs, weight
    rows, columns = weight.shape
    groups = functional.pad(weight.detach(), (0, -columns % _GROUP)).reshape(-1, _GROUP)
    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / _LEVELS).clamp(min=torch.finfo(weight.dtype).tiny)
    zero_point = (-low / scale).round()
    numbers = ((groups / scale).round() + zero_point).clamp(0, _LEVELS) - zero_point
    rounded = (numbers * scale).reshape(rows, -1)[:, :columns]
    return inputs, weight + (rounded - weight.detach())
