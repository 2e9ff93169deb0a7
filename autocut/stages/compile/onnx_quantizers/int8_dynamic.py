"""Int8 weights in ONNX Runtime, and activations whose scale is found while running."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autocut.stages import processor
from autocut.stages.compile.onnx_quantizers import Feed, onnx_quantizers
from autocut.stages.compile.onnx_quantizers.onnx_files import prepare, require_quantized


@onnx_quantizers.register("int8_dynamic")
def quantize_dynamic(source: Path, target: Path, feeds: Sequence[Feed]) -> None:  # noqa: ARG001
    """Int8 weights per output channel and activations quantized while running, in matrix products only.

    Convolutions stay float: ONNX Runtime would quantize them too, and run them 4x to 6x slower than float (FACTS, section 9).
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    quantize(
        prepare(source), target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
        reduce_range=not processor.has_vnni(), weight_type=QuantType.QInt8,
    )  # fmt: skip
    require_quantized(target, "int8_dynamic")
