"""Shared by the methods that change linear layers alone."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages.compilers import quietly, translated


def quantize_linear_layers(model: nn.Module, dtype: str, config: Any) -> nn.Module:
    """Copy `model` and apply a torchao configuration to its linear layers, in plain tensors that an archive can hold unpickled.

    Raises:
        InfeasibleRecipeError: `model` has no nn.Linear; torchao's `quantize_` would return it unchanged without a word.
    """
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise InfeasibleRecipeError(
            f"{dtype} must change at least one nn.Linear, but the model has none",
            "use int8_static, which quantizes convolutions too",
        )
    changed = copy.deepcopy(model).eval().requires_grad_(False)
    with translated("torchao"), quietly():
        from torchao.quantization import quantize_
        from torchao.utils import unwrap_tensor_subclass

        quantize_(changed, config)
        return unwrap_tensor_subclass(changed)  # type: ignore[no-any-return]
