"""Shared by the methods that change linear layers alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages.compilers import quietly, translated


def quantize_linear_layers(model: nn.Module, dtype: str, config: Any) -> nn.Module:
    """Copy `model` and apply a torchao configuration to its linear layers, in plain tensors that an archive can hold unpickled.

    Raises:
        InfeasibleRecipeError: nothing was quantized. torchao's `quantize_` returns such a model unchanged without a word: one
            without nn.Linear, or with none but the output projection of nn.MultiheadAttention, which it skips.
    """
    changed = copy.deepcopy(model).eval().requires_grad_(False)
    with translated("torchao"), quietly():
        from torchao.quantization import quantize_
        from torchao.utils import unwrap_tensor_subclass

        quantize_(changed, config)
        unwrapped: nn.Module = unwrap_tensor_subclass(changed)
    if _int8_tensors(unwrapped) <= _int8_tensors(model):
        raise InfeasibleRecipeError(
            f"{dtype} must change at least one nn.Linear, but the model has none that it can",
            "use int8_static, which quantizes convolutions too",
        )
    return unwrapped


def _int8_tensors(model: nn.Module) -> int:
    return sum(tensor.dtype == torch.int8 for tensor in (*model.parameters(), *model.buffers()))
