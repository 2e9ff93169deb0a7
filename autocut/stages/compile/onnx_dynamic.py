"""Dynamic int8 for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autocut.stages import processor
from autocut.stages.compile.onnx_comparison import OnnxComparison
from autocut.stages.compile.onnxruntime import Feed, onnx_quantizers, prepare, require_quantized
from autocut.stages.sensitivity import keep_sensitive

_PRODUCTS = ("MatMul", "Gemm")


@onnx_quantizers.register("int8_dynamic", version=2, keeps_float=True, seconds_per_100mb=3.5)
def quantize_dynamic(source: Path, target: Path, feeds: Sequence[Feed], keep_float: int = 0) -> None:
    """Int8 weights per output channel and activations quantized while running, in matrix products only.

    Convolutions stay float: ONNX Runtime would quantize them too, and run them 4x to 6x slower than float (FACTS, section 9).
    Products stay float as they do in `int8_static`: `keep_float` of them, and those that would spoil the outputs.
    """
    import onnx

    path = prepare(source)
    graph = onnx.load(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    layers = [node.name for node in graph.node if node.op_type in _PRODUCTS and stored.intersection(node.input)]

    def make(kept: Sequence[str], only: Sequence[str]) -> Any:
        return _quantized(path, kept, only)

    comparison = OnnxComparison(path, feeds)
    onnx.save(keep_sensitive(comparison.attempt(make([], [])), layers, make, comparison, keep_float), target)
    require_quantized(target, "int8_dynamic")


def _quantized(path: Path, kept: Sequence[str], only: Sequence[str]) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = path.with_name("dynamic.onnx")
    quantize_dynamic(
        path, made, op_types_to_quantize=list(_PRODUCTS), per_channel=True, reduce_range=not processor.sums_int8_in_32_bits(),
        weight_type=QuantType.QInt8, nodes_to_quantize=list(only), nodes_to_exclude=list(kept),
    )  # fmt: skip
    return onnx.load(made)
