"""Weight-only dtypes for ONNX Runtime: packed integers in groups, which its `MatMulNBits` kernel reads as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.stages.calibration import in_steps
from autocut.stages.compile.onnx_comparison import OnnxComparison, open_session
from autocut.stages.compile.onnxruntime import Feed, onnx_quantizers, prepare, require_quantized
from autocut.stages.quantize.grouped import LEVELS, Grouped, round_in_groups
from autocut.stages.quantize.moments import moments_by_name
from autocut.stages.sensitivity import TOLERATED, Attempt

_GROUP = 32
_BY_INTEGERS, _IN_FLOAT = 4, 1
"""How the kernel computes: it quantizes activations while running and multiplies integers, or it is several times slower (1.32)."""
_BORNE = 0.05
"""Integers are chosen if they add no more than this to the deviation of the outputs, as a share of the outputs' own spread."""
_ROWS = 4
"""Examples in a call that shows the inputs of all layers: those of BERT-base are 33 MB an example."""
_BATCHES_OF_SCAN = 2
_SHARE_OF_INT8 = 0.2
"""Of all weights, at most. Half of this leaves perplexity of stories260K 4.3% higher, this 3.1%, and groups of 16 instead 5.0%."""


@onnx_quantizers.register("int4_weight_only", version=2)
def pack_int4(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    """Int4 weights of matrix products, two in a byte; 32 of an output channel share a scale and an offset.

    Weights make up for one another's rounding (`round_in_groups`). Where the outputs deviate too much even so, up to a fifth of the
    weights are int8: the layers that deviate the outputs the most for their size, unless the model is too large to find them.
    """
    import onnx

    path = _with_products(source)
    layers, comparison = _layers(path), OnnxComparison(path, feeds)
    rounded = _rounded(path, layers, moments_by_name(_inputs(path, layers, feeds)))
    found = _at_best_level(_packed_again(path, rounded, []), comparison)
    if found.deviation > TOLERATED and comparison.allows_scan(len(layers)):
        scan = OnnxComparison(path, feeds[:_BATCHES_OF_SCAN])
        alone = {layer: scan.attempt(_rounded_alone(path, rounded[layer])).deviation for layer in rounded}
        if int8 := _most_sensitive(alone, {layer: rounded[layer].grouped.numbers.numel() for layer in rounded}):
            found = _at_best_level(_packed_again(path, rounded, int8), comparison)
    onnx.save(found.model, target)
    require_quantized(target, "int4_weight_only")


@onnx_quantizers.register("int8_weight_only")
def pack_int8(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    """Int8 weights of matrix products; 32 of an output channel share a scale and an offset."""
    import onnx

    path = _with_products(source)
    onnx.save(_at_best_level(_packed(onnx.load(path), 8), OnnxComparison(path, feeds)).model, target)
    require_quantized(target, "int8_weight_only")


@dataclass(frozen=True)
class _Rounded:
    """Numbers for the stored `weight` of a matrix product, which has the shape (columns, rows) there."""

    weight: str
    grouped: Grouped


def _with_products(source: Path) -> Path:
    import onnx

    path = prepare(source)
    model = onnx.load(path)
    _split_gemms(model.graph)
    onnx.save(model, path)
    return path


def _layers(path: Path) -> dict[str, tuple[str, str]]:
    """The matrix products with stored weights: what each reads, and its weight."""
    import onnx

    graph = onnx.load(path).graph
    stored = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    return {
        node.name: (node.input[0], node.input[1]) for node in graph.node if node.op_type == "MatMul" and node.input[1] in stored
    }


def _inputs(path: Path, layers: Mapping[str, tuple[str, str]], feeds: Sequence[Feed]) -> Iterator[Mapping[str, Tensor]]:
    """Run the model in `path` on some examples after the other, and show what `layers` read."""
    import onnx

    model = onnx.load(path)
    known = {tensor.name for tensor in (*model.graph.initializer, *model.graph.input)}
    names = sorted({inputs for inputs, _ in layers.values()} - known)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(model.SerializeToString())
    for feed in feeds:
        for start in in_steps(range(0, len(next(iter(feed.values()))), _ROWS)):
            rows = {name: array[start : start + _ROWS] for name, array in feed.items()}
            yield {name: torch.from_numpy(array) for name, array in zip(names, session.run(names, rows), strict=True)}


def _rounded(path: Path, layers: Mapping[str, tuple[str, str]], moments: Mapping[str, Tensor]) -> dict[str, _Rounded]:
    import onnx
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    found = {}
    for layer, (inputs, weight) in layers.items():
        rows = torch.from_numpy(numpy_helper.to_array(stored[weight]).T.copy())
        found[layer] = _Rounded(weight, round_in_groups(rows, moments.get(inputs, torch.eye(rows.shape[1])), _grid, _GROUP))
    return found


def _grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The offset is one of the four-bit numbers itself."""
    scale = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    return scale, -(-low / scale).round() * scale


def _rounded_alone(path: Path, layer: _Rounded) -> Any:
    """Return the float model with rounded weights in one layer."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == layer.weight)
    columns = layer.grouped.weights(tensor.dims[0]).T.contiguous()
    tensor.CopyFrom(numpy_helper.from_array(columns.numpy(), tensor.name))
    return model


def _most_sensitive(alone: Mapping[str, float], sizes: Mapping[str, int]) -> list[str]:
    """The layers whose squared deviation is the largest for their size, together no more than a share of all weights."""
    left = _SHARE_OF_INT8 * sum(sizes.values())
    chosen = []
    for layer in sorted(alone, key=lambda layer: alone[layer] ** 2 / sizes[layer], reverse=True):
        if sizes[layer] <= left:
            chosen.append(layer)
            left -= sizes[layer]
    return chosen


def _packed_again(path: Path, rounded: Mapping[str, _Rounded], int8: Sequence[str]) -> Any:
    """Let ONNX Runtime round to nearest, which makes the nodes, and put the numbers of `rounded` in their place."""
    import onnx
    from onnx import numpy_helper

    model = _packed(onnx.load(path), 4, exclude=int8)
    numbers = {layer.weight: layer.grouped for layer in rounded.values()}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        weight = node.input[1].removesuffix("_Q4") if node.op_type == "MatMulNBits" else ""
        if weight in numbers:
            grouped = numbers[weight]
            zero = (-grouped.zero / grouped.scale).round().squeeze(2)
            arrays = _two_in_a_byte(grouped.numbers), grouped.scale.numpy(), _two_in_a_byte(zero)
            for name, array in zip(node.input[1:4], arrays, strict=True):
                stored[name].CopyFrom(numpy_helper.from_array(array.reshape(tuple(stored[name].dims)), name))
    return _packed(model, 8) if int8 else model


def _two_in_a_byte(numbers: Tensor) -> NDArray[Any]:
    """Pack the last dimension: the first number of two in the lower bits."""
    array = numbers.numpy().astype(np.uint8)
    if array.shape[-1] % 2:
        array = np.concatenate([array, np.zeros_like(array[..., :1])], axis=-1)
    return array[..., 0::2] | array[..., 1::2] << 4


def _packed(model: Any, bits: int, exclude: Sequence[str] = ()) -> Any:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=_GROUP, is_symmetric=False, nodes_to_exclude=list(exclude))
    quantizer.process()
    return quantizer.model.model


def _at_best_level(model: Any, comparison: OnnxComparison) -> Attempt:
    """Let the kernel of `model` compute by integers, unless that costs too much."""
    fast, exact = (comparison.attempt(_at_level(model, level)) for level in (_BY_INTEGERS, _IN_FLOAT))
    return fast if fast.deviation <= exact.deviation + _BORNE else exact


def _at_level(model: Any, level: int) -> Any:
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if node.op_type == "MatMulNBits":
            node.attribute.append(onnx.helper.make_attribute("accuracy_level", level))
    return changed


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
