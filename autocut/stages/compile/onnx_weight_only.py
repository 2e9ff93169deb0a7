"""Weight-only dtypes for ONNX Runtime: packed integers in groups, which its `MatMulNBits` kernel reads as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autocut.stages.compile.onnx_sensitivity import Comparison
from autocut.stages.compile.onnxruntime import Feed, onnx_quantizers, prepare, require_quantized

_GROUP = 32
_BY_INTEGERS, _IN_FLOAT = 4, 1
"""How the kernel computes: it quantizes activations while running and multiplies integers, or it is several times slower (1.32)."""
_BORNE = 0.05
"""Integers are chosen if they add no more than this to the deviation of the outputs, as a share of the outputs' own spread."""


@onnx_quantizers.register("int4_weight_only")
def pack_int4(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    """Int4 weights of matrix products, two in a byte; 32 of an output channel share a scale and an offset."""
    _pack(source, target, feeds, bits=4)
    require_quantized(target, "int4_weight_only")


@onnx_quantizers.register("int8_weight_only")
def pack_int8(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    """Int8 weights of matrix products; 32 of an output channel share a scale and an offset."""
    _pack(source, target, feeds, bits=8)
    require_quantized(target, "int8_weight_only")


def _pack(source: Path, target: Path, feeds: Sequence[Feed], bits: int) -> None:
    import onnx

    path = prepare(source)
    comparison = Comparison(path, feeds)
    fast, exact = (comparison.attempt(_packed(path, bits, level)) for level in (_BY_INTEGERS, _IN_FLOAT))
    onnx.save(fast.model if fast.deviation <= exact.deviation + _BORNE else exact.model, target)


def _packed(path: Path, bits: int, level: int) -> Any:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(path)
    _split_gemms(model.graph)
    quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=_GROUP, is_symmetric=False, accuracy_level=level)
    quantizer.process()
    return quantizer.model.model


def _split_gemms(graph: Any) -> None:
    """Rewrite linear layers with a bias, which export as Gemm, as a product and a sum: the quantizer skips what is no product."""
    from onnx import helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        is_plain = options.get("alpha", 1.0) == options.get("beta", 1.0) == 1.0 and not options.get("transA", 0)
        if node.op_type != "Gemm" or node.input[1] not in stored or not is_plain:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(stored[node.input[1]])
        name, has_bias = f"{node.name or node.output[0]}_weight", len(node.input) > 2 and bool(node.input[2])
        columns = np.ascontiguousarray(weight.T if options.get("transB", 0) else weight)
        graph.initializer.append(numpy_helper.from_array(columns, name))
        product = f"{node.output[0]}_product" if has_bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], f"{node.name}_product"))
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], f"{node.name}_sum"))
    graph.ClearField("node")
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)
