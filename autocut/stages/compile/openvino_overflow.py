"""Int8 weights of OpenVINO models on processors that sum products in 16 bits (`processor.sums_int8_in_32_bits`)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 64
"""The largest number of 7 bits: 255 x 64, twice, is 32,640."""


def keep_to_7_bits(model: Any) -> int:
    """Halve the int8 weights of a static int8 model where one is beyond 7 bits, double their scales, and count the layers.

    Such a model was quantized on another processor. Weights of a model whose activations stay float are not summed as integers.

    Args:
        model: An `openvino.Model` as it is read from a file. It is changed.
    """
    nodes = model.get_ops()
    if not any(node.get_type_name() == "FakeQuantize" for node in nodes):
        return 0
    halved = 0
    for scaled in nodes:
        parts = _numbers_and_scale(scaled)
        if parts is not None and np.abs(parts[0].data.astype(np.int16)).max() > _MOST:
            numbers, scale = parts
            replace_constant(numbers, np.rint(numbers.data / 2).astype(np.int8))
            replace_constant(scale, scale.data * 2)
            halved += 1
    return halved


def replace_constant(constant: Any, values: NDArray[Any]) -> None:
    """Put `values` in the place of a constant of the same type and size."""
    opset = importlib.import_module("openvino.opset13")
    shape = list(constant.get_output_shape(0))
    made = opset.constant(values.reshape(shape), dtype=constant.get_element_type())
    made.set_friendly_name(constant.get_friendly_name())
    constant.output(0).replace(made.output(0))


def _numbers_and_scale(scaled: Any) -> tuple[Any, Any] | None:
    """Return the constants that `scaled` multiplies, if these are int8 weights without an offset and their scales."""
    if scaled.get_type_name() != "Multiply":
        return None
    convert, scale = (value.get_node() for value in scaled.input_values())
    if convert.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
        return None
    numbers = convert.input_value(0).get_node()
    is_int8 = numbers.get_type_name() == "Constant" and numbers.get_element_type().get_type_name() == "i8"
    return (numbers, scale) if is_int8 else None
