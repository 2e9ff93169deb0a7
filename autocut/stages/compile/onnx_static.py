"""Static int8 for ONNX Runtime: which operators are quantized, by which calibration, and which layers stay float.

Four faults cost 21 to 58 points of accuracy when every operator was quantized by its smallest and largest number (1.32):

- a product of two activations, as in attention, has no weights to save and loses the most: it stays float, and so does all but the
  layers with weights of its model;
- where operators between the layers are quantized too, numbers stay int8 all the way, which is fastest; but they lose a little each
  time: it is done where the outputs bear it;
- a few large numbers stretch the scale: the range is also tried without them, and the better one by the outputs is kept;
- one layer with numbers of very different sizes, such as the power of a spectrogram, spoils all behind it: where the outputs
  deviate too much, the layers that are to blame are measured and stay float.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autocut.stages import processor
from autocut.stages.calibration import affordable
from autocut.stages.compile.onnx_comparison import OnnxComparison, is_large
from autocut.stages.compile.onnxruntime import Feed, onnx_quantizers, prepare, require_quantized, unchanged
from autocut.stages.sensitivity import TOLERATED, Attempt, keep_sensitive, too_large

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_METHODS = ("MinMax", "Percentile")
_CLIPS = ("Relu", "Clip")
"""The quantizer drops them where rounding clips as well."""


@onnx_quantizers.register("int8_static", version=3, keeps_float=True, seconds_per_100mb=17.0)
def quantize_static(source: Path, target: Path, feeds: Sequence[Feed], keep_float: int = 0) -> None:
    """Int8 weights per channel and uint8 activations scaled by calibration data, as operator pairs that the runtime fuses.

    `keep_float` layers stay float: those whose quantization alone makes the outputs deviate the most. Without it, so do as few as
    it takes to keep the deviation on the calibration data below a tenth of the outputs' own spread.

    References:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877
        https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    import onnx

    path = prepare(source)
    model, comparison = _FloatModel.read(path), OnnxComparison(path, feeds)
    if not model.layers:
        raise unchanged("int8_static")
    if keep_float and not comparison.allows_scan(len(model.layers)):
        raise too_large(len(model.layers))
    tried: list[tuple[Attempt, Any]] = []
    used = affordable(feeds, model.numbers)
    is_slow = is_large(path) or used.is_cut
    for operators in model.operators:
        tried = []
        for method in _METHODS:
            make = partial(model.quantized, operators, model.ranges(used, operators, method))
            tried.append((comparison.attempt(make([], [])), make))
            if is_slow and tried[-1][0].deviation <= TOLERATED:
                break  # the other one takes half a minute
        if min(found.deviation for found, _ in tried) <= TOLERATED:
            break
    found, make = min(tried, key=lambda one: one[0].deviation)
    onnx.save(keep_sensitive(found, model.layers, make, comparison, keep_float), target)
    require_quantized(target, "int8_static")


@dataclass(frozen=True)
class _FloatModel:
    """What is known of a float model before it is quantized, by the names of its nodes.

    `layers` have weights, `unweighted` are products of two activations. `clipped` names the clipping operators in front of a node.
    `operators` are the kinds of operators to quantize: the fastest choice first. `numbers` is how many activations one example has.
    """

    path: Path
    layers: tuple[str, ...]
    unweighted: tuple[str, ...]
    clipped: dict[str, list[str]]
    operators: tuple[Sequence[str], ...]
    numbers: int

    @staticmethod
    def read(path: Path) -> _FloatModel:
        from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        graph = load_model_with_shape_infer(path).graph
        stored = {tensor.name for tensor in graph.initializer}
        products = [node for node in graph.node if node.op_type in _PRODUCTS]
        unweighted = tuple(node.name for node in products if not stored.intersection(node.input))
        makers = {output: node for node in graph.node for output in node.output}
        before = {node.name: [makers[name] for name in node.input if name in makers] for node in graph.node}
        has_attention = bool(unweighted) or any(node.op_type == "Softmax" for node in graph.node)
        every = sorted({*QLinearOpsRegistry, *QDQRegistry})
        return _FloatModel(
            path,
            tuple(node.name for node in products if stored.intersection(node.input)),
            unweighted,
            {name: [node.name for node in nodes if node.op_type in _CLIPS] for name, nodes in before.items()},
            (_PRODUCTS,) if has_attention else (every, _PRODUCTS),
            sum(math.prod(max(size.dim_value, 1) for size in info.type.tensor_type.shape.dim[1:]) for info in graph.value_info),
        )

    def ranges(self, feeds: Sequence[Feed], operators: Sequence[str], method: str) -> Any:
        """Find the ranges of activations by a calibration method of ONNX Runtime."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        augmented = str(self.path.with_name("augmented.onnx"))
        calibrator = create_calibrator(
            self.path, list(operators), augmented_model_path=augmented, calibrate_method=CalibrationMethod[method]
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            for feed in feeds:  # one after the other: it keeps all activations of what it gets at once
                calibrator.collect_data(_Reader(feed))
            return calibrator.compute_data()

    def quantized(self, operators: Sequence[str], ranges: Any, kept: Sequence[str], only: Sequence[str]) -> Any:
        """Quantize the kinds of operators in `operators`, but not the nodes `kept`; or the nodes `only` alone."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

        excluded = [*self.unweighted, *kept, *(name for layer in kept for name in self.clipped[layer])]
        # Where only products are quantized, what reads them is float: their outputs need not be rounded.
        options = {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]} if operators is _PRODUCTS else {}
        quantizer = QDQQuantizer(
            load_model_with_shape_infer(self.path), True, not processor.sums_int8_in_32_bits(), QuantType.QInt8, QuantType.QUInt8,
            ranges, list(only), excluded, list(operators), options,
        )  # fmt: skip
        quantizer.quantize_model()
        _give_float_inputs(quantizer.model.model.graph, excluded)
        return quantizer.model.model


def _give_float_inputs(graph: Any, names: Sequence[str]) -> None:
    """Let the nodes `names`, which are float, read what was there before the node in front of them had its outputs rounded."""
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        for index, name in enumerate(node.input if node.name in names else ()):
            dequantize = makers.get(name)
            quantize = makers.get(dequantize.input[0]) if dequantize and dequantize.op_type == "DequantizeLinear" else None
            if quantize is not None and quantize.op_type == "QuantizeLinear":
                node.input[index] = quantize.input[0]


class _Reader:
    """One batch in the form that ONNX Runtime asks for: `get_next` gives a feed, and None at the end."""

    def __init__(self, feed: Feed) -> None:
        self._left = [feed]

    def get_next(self) -> Feed | None:
        """Return the next feed."""
        return self._left.pop() if self._left else None
