"""Runs OpenVINO models while they are made: how far their outputs deviate, and what their layers read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autocut.stages.calibration import in_steps
from autocut.stages.compile.openvino import FLOAT, Arrays, Model, load_runtime, serving
from autocut.stages.sensitivity import Attempt, deviation, joined

_ROWS = 16
"""A scan runs the model once a layer: on so many examples of each batch."""
_LARGE_BYTES = 100 * 2**20
_ROWS_OF_LARGE = 1
_MOST_BYTES_OF_SCAN = 2**30
"""A scan quantizes the model once a layer. nncf takes about 0.2 s for each MB."""
_ROWS_AT_ONCE = 4
"""Examples in a call that shows the inputs of all layers: those of BERT-base are 33 MB an example."""
_WEIGHTED = ("MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData")
_NO_ACTIVATIONS = ("Constant", "Parameter", "Result")
_FORMS = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Subtract", "Transpose", "Unsqueeze")


class OpenVinoComparison:
    """Compares outputs with those of a float model, on some of the examples in `feeds`: few for a large model.

    `properties` are what the quantized models will be loaded with.
    """

    def __init__(self, model: Model, feeds: Sequence[Arrays], properties: Mapping[str, str | int]) -> None:
        self._bytes = _weight_bytes(model)
        rows = _ROWS_OF_LARGE if self._bytes > _LARGE_BYTES else _ROWS
        self.feeds = [[array[:rows] for array in feed] for feed in feeds]
        self._properties = properties
        self._wanted = self._outputs(model)

    def attempt(self, model: Model) -> Attempt:
        """Measure the quantized model `model`."""
        return Attempt(model, deviation(self._outputs(model), self._wanted))

    def allows_scan(self, layers: int) -> bool:
        """Whether all copies of the model, one a layer, are small enough."""
        return layers * self._bytes <= _MOST_BYTES_OF_SCAN

    def _outputs(self, model: Model) -> Any:
        request = _loaded(model, self._properties)
        return joined([np.array(request.infer(feed)[0]) for feed in in_steps(self.feeds)])


def weighted_layers(model: Model) -> dict[str, Model]:
    """The products and convolutions with stored weights, by name."""
    return {
        node.get_friendly_name(): node
        for node in model.get_ops()
        if node.get_type_name() in _WEIGHTED and _is_stored(node.input_value(1).get_node())
    }


def numbers_of_model(model: Model, feed: Arrays) -> int:
    """Return how many activations one example of `feed` has in `model`."""
    shaped = model.clone()
    shaped.reshape({port: list(array.shape) for port, array in zip(shaped.inputs, feed, strict=True)})
    nodes = [node for node in shaped.get_ops() if node.get_type_name() not in _NO_ACTIVATIONS]
    shapes = [output.get_partial_shape() for node in nodes for output in node.outputs()]
    numbers: int = sum(math.prod(shape.to_shape()) for shape in shapes if shape.is_static)
    return numbers // len(feed[0])


def inputs_of_products(model: Model, feeds: Sequence[Arrays]) -> Iterator[Mapping[str, Tensor]]:
    """Run `model` on some examples after the other, and show what its matrix products with stored weights read, by `source`."""
    shown = model.clone()
    products = [node for node in weighted_layers(shown).values() if node.get_type_name() == "MatMul"]
    sources = {source(node): node.input_value(0) for node in products}
    first = len(shown.outputs)
    shown.add_outputs(list(sources.values()))
    request = _loaded(shown, FLOAT)
    for feed in feeds:
        for start in in_steps(range(0, len(feed[0]), _ROWS_AT_ONCE)):
            outputs = request.infer([array[start : start + _ROWS_AT_ONCE] for array in feed])
            yield {name: torch.from_numpy(outputs[index]) for index, name in enumerate(sources, first)}


def source(node: Any) -> str:
    """Name of what a layer reads: several layers may read the same."""
    return f"{node.input_value(0).get_node().get_friendly_name()}, output {node.input_value(0).get_index()}"


def _loaded(model: Model, properties: Mapping[str, str | int]) -> Any:
    openvino = load_runtime()
    compiled = openvino.Core().compile_model(model, "CPU", {**properties, **serving(torch.get_num_threads())})
    return compiled.create_infer_request()


def _is_stored(node: Any) -> bool:
    """Whether `node` is a constant, or nothing but another form of one: integers that are turned back, a filter by groups."""
    if node.get_type_name() in _FORMS:
        return all(_is_stored(value.get_node()) for value in node.input_values())
    return bool(node.get_type_name() == "Constant")


def _weight_bytes(model: Model) -> int:
    return sum(node.data.nbytes for node in model.get_ops() if node.get_type_name() == "Constant")
