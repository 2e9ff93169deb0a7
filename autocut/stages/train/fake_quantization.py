"""Quantization-aware training: the products of a training compute with rounded numbers, and its weights learn to bear that.

Each product of an input and a weight (linear, convolution, `addmm` and `matmul` with a parameter) gets both operands as integers
would give them back. Gradients pass the rounding as if it were not there. The model itself has nothing of it: no hook, no buffer,
no other module. What is trained are its own float weights, so any lowering quantizes it as it does every other model.

Two things need no care because of how int8 rounds. A weight has a scale for each output channel, so a batch normalization that is
folded into the weight afterwards, a factor for each channel, changes no rounding. The range of an input is that of its batch, so a
checkpoint has no range to keep.

Transposed convolutions and recurrent layers stay float, and so does the input of the last layer of `nn.MultiheadAttention`.

References:
    Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    Bengio et al. 2013 (straight-through gradients), https://arxiv.org/abs/1308.3432
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from autocut.errors import InfeasibleRecipeError, quoted
from autocut.recipe import LEFT_OUT, QUANTIZATION_AWARE, Value
from autocut.stages.train.registries import FakeQuantizer, fake_quantizers
from autocut.stages.train.teacher import Gate, run_teacher, sample_examples
from autocut.task.task import Task

_LAYERS = (functional.linear, functional.conv1d, functional.conv2d, functional.conv3d)
_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)
_OPERANDS: Mapping[Callable[..., Any], tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(_LAYERS, ("input", "weight")),
        **dict.fromkeys(_PRODUCTS, ("input", "other")),
        torch.addmm: ("input", "mat1", "mat2"),
    }
)
"""Functions that multiply an input by a weight, with the names of their first arguments, of which these are the last two."""

_ATTENTION = inspect.signature(functional.multi_head_attention_forward)
_ATTENTION_INPUTS = ("query", "key", "value")
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj_weight")


def fake_quantization(settings: Mapping[str, Value]) -> AbstractContextManager[object]:
    """Return the context in which a training with `settings` runs its model; it can be entered again and again."""
    method = _method(settings)
    return contextlib.nullcontext() if method is None else FakeQuantization(method)


def is_quantization_aware(settings: Mapping[str, Value]) -> bool:
    """Whether a training with `settings` rounds anything."""
    return _method(settings) is not None


def check_fake_quantization(settings: Mapping[str, Value], model: nn.Module, task: Task, gate: Gate) -> None:
    """Refuse a quantization-aware training that would round nothing: `model` is run on two training examples.

    Raises:
        InfeasibleRecipeError: no weight of `model` is rounded.
    """
    method = _method(settings)
    if method is None:
        return
    rounding = FakeQuantization(method)
    with gate():
        inputs, _ = sample_examples(task, 2)
        with rounding:
            run_teacher(model, inputs)
    if not rounding.rounded:
        raise InfeasibleRecipeError(
            f"{QUANTIZATION_AWARE} {quoted(settings[QUANTIZATION_AWARE])} must round the weights of a layer, "
            "but this model has none that it can round"
        )


class FakeQuantization(TorchFunctionMode):
    """Within this context, each product with a weight rounds its operands by `method`; `rounded` counts such products."""

    def __init__(self, method: FakeQuantizer) -> None:
        super().__init__()
        self.rounded = 0
        self._method = method

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`, with rounded operands where it is a product; what is called meanwhile does not come here."""
        named = dict(kwargs or {})
        if names := _OPERANDS.get(func, ()):
            args = (*args, *(named.pop(name) for name in names[len(args) :] if name in named))
            before, operands, after = args[: len(names) - 2], args[len(names) - 2 : len(names)], args[len(names) :]
            if len(operands) == 2 and all(isinstance(one, Tensor) and one.dtype == torch.float32 for one in operands):
                args = (*before, *self._rounded(*operands, is_layer=func in _LAYERS), *after)
        elif func is functional.multi_head_attention_forward:
            args, named = (), self._rounded_attention(_ATTENTION.bind(*args, **named).arguments)
        return func(*args, **named)

    def _rounded(self, inputs: Tensor, weight: Tensor, *, is_layer: bool) -> tuple[Tensor, Tensor]:
        """Return both operands rounded. Only a layer has its outputs in the first dimension of its weight.

        Outside a layer only a parameter is a weight: the other products are those of two activations.
        """
        if not is_layer and not (isinstance(weight, nn.Parameter) and weight.dim() == 2):
            return inputs, weight
        given = weight if is_layer else weight.T
        inputs, rounded = self._method(inputs, given)
        self.rounded += rounded is not given
        return inputs, rounded if is_layer else rounded.T

    def _rounded_attention(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of an attention with rounded inputs and weights; inputs that are one tensor stay one."""
        weights = {name: arguments[name] for name in _ATTENTION_WEIGHTS if arguments.get(name) is not None}
        of_inputs = {id(arguments[name]): arguments[name] for name in _ATTENTION_INPUTS}
        if any(tensor.dtype != torch.float32 for tensor in (*weights.values(), *of_inputs.values())):
            return arguments
        some = weights["out_proj_weight"]
        inputs = {key: self._method(tensor, some)[0] for key, tensor in of_inputs.items()}
        rounded = {name: self._rounded(some, weight, is_layer=True)[1] for name, weight in weights.items()}
        return arguments | rounded | {name: inputs[id(arguments[name])] for name in _ATTENTION_INPUTS}


def _method(settings: Mapping[str, Value]) -> FakeQuantizer | None:
    name = settings.get(QUANTIZATION_AWARE, LEFT_OUT[QUANTIZATION_AWARE])
    return None if name == LEFT_OUT[QUANTIZATION_AWARE] else fake_quantizers[str(name)]
