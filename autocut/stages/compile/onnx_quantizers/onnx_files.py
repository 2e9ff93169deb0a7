"""What the quantizers do with a model's file before and after."""

from __future__ import annotations

from pathlib import Path

from autocut.errors import InfeasibleRecipeError

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGER_PRODUCTS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")


def prepare(source: Path) -> Path:
    """Infer shapes and fold batch normalization, which the quantizers need, and return the new file."""
    from onnxruntime.quantization import shape_inference

    prepared = source.with_name("prepared.onnx")
    shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


def require_quantized(path: Path, dtype: str) -> None:
    """Raise unless a convolution or matrix product in `path` reads quantized numbers: a quantized softmax alone is none.

    Raises:
        InfeasibleRecipeError: there is none.
    """
    import onnx

    nodes = onnx.load(path).graph.node
    dequantized = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    for node in nodes:
        if node.op_type in _INTEGER_PRODUCTS or (node.op_type in _PRODUCTS and dequantized.intersection(node.input)):
            return
    raise InfeasibleRecipeError(f"{dtype} must change at least one layer, but ONNX Runtime's quantizer found none that it can")
