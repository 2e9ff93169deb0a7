"""Shared by the dtypes that change linear layers alone."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from torch import nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages.compilers import quietly, translated
from autocut.stages.quantize import quantizers


def quantize_linear_layers(model: nn.Module, dtype: str, config: Any) -> nn.Module:
    """Copy `model` and apply a torchao configuration to its linear layers, in plain tensors that an archive can hold unpickled.

    Raises:
        InfeasibleRecipeError: nothing was quantized. torchao's `quantize_` returns such a model unchanged and says nothing: one
            without nn.Linear, or with none but the output projection of nn.MultiheadAttention, which it skips.
    """
    changed = copy.deepcopy(model).eval().requires_grad_(False)
    with translated("torchao"), quietly():
        from torchao.quantization import quantize_
        from torchao.utils import unwrap_tensor_subclass

        quantize_(changed, config)
        unwrapped: nn.Module = unwrap_tensor_subclass(changed)
    if _stored(unwrapped) == _stored(model):
        others = " or ".join(method.name for method in quantizers if method.options.convolutions)
        raise InfeasibleRecipeError(
            f"{dtype} must change at least one nn.Linear, but the model has none that it can",
            f"use {others}, which quantizes convolutions too",
        )
    return unwrapped


def _stored(model: nn.Module) -> Counter[object]:
    """How many tensors of each dtype and shape a model holds."""
    return Counter((tensor.dtype, tensor.shape) for tensor in (*model.parameters(), *model.buffers()))
