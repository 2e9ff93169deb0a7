"""ONNX Runtime: its own graph format, its own quantizers, its own kernels.

It starts from the float graph and quantizes by itself, because the int8 graphs of torch do not translate to its kernels. A
dtype is one function registered in `onnx_quantizers`: it reads a float model from one file and writes the quantized one to
another.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.errors import BundleError, InfeasibleRecipeError
from autocut.registry import Registry
from autocut.stages import processor
from autocut.stages.compile import Job, Run, modes
from autocut.stages.compilers import first_line, quietly, translated
from autocut.stages.graph import Signature, load_graph

Feed = dict[str, NDArray[Any]]
OnnxQuantizer = Callable[[Path, Path, Sequence[Feed]], None]

onnx_quantizers: Registry[OnnxQuantizer] = Registry("quantize.dtype in onnxruntime")

_MODEL_FILE = "model.onnx"
_FLOAT_FILE = "float.onnx"
_OUTPUT = "output"
_ERRORS_ONLY = 3
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGER_PRODUCTS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")


def load_onnxruntime(folder: Path, signature: Signature, threads: int) -> Run:
    """Open a session on the CPU with `threads` threads inside an operator and one operator at a time.

    Raises:
        BundleError: the model file is missing or damaged.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(str(folder / _MODEL_FILE), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base but this
        raise BundleError(
            f"{_MODEL_FILE} must be a model for ONNX Runtime, got: {first_line(error)}", "export the model again"
        ) from error

    def run(*arguments: Tensor) -> Tensor:
        feed = {name: _array(tensor) for name, tensor in zip(signature.names, arguments, strict=True)}
        (output,) = session.run(None, feed)
        return torch.from_numpy(output)

    return run


def _infeasible(dtype: str) -> str | None:
    if dtype in onnx_quantizers:
        return None
    return "ONNX Runtime has no bfloat16 kernels for CPUs" if dtype == "bf16" else f"ONNX Runtime has no kernel for {dtype}"


def _numerics(dtype: str) -> str:
    return "" if dtype == "fp32" else f"{dtype} by onnxruntime, {_context(dtype)}"


def _context(dtype: str) -> str:
    quantizer = f"quantizer v{onnx_quantizers.method(dtype).version}"
    return quantizer if dtype == "fp32" else f"{quantizer}, {processor.int8_range()}"


def convert_to_onnx(graph: Path, folder: Path) -> None:
    """Export the float graph to ONNX, which takes much longer than to quantize it (digits: 1.1 s, then 0.1 s).

    The exporter (torch 2.13) notes at each node where in whose source it came from: half of a small file, and nobody's business to
    whom it is handed. It is left out. So are the shapes that it notes between the nodes: whoever reads the file infers them, and
    the dynamic quantizer of ONNX Runtime 1.30 finds that they contradict what it has transposed.
    """
    import onnx

    with translated("torch.onnx"), quietly(), torch.no_grad():
        torch.onnx.export(
            load_graph(graph), (), folder / _FLOAT_FILE, dynamo=True, input_names=list(Signature.read(graph).names),
            output_names=[_OUTPUT], external_data=False, verbose=False,
        )  # fmt: skip
    model = onnx.load(folder / _FLOAT_FILE)
    graph_ = model.graph
    del graph_.value_info[:]
    for noted in (model, graph_, *graph_.node, *graph_.input, *graph_.output, *graph_.initializer):
        del noted.metadata_props[:]
    onnx.save(model, folder / _FLOAT_FILE)


@modes.register(
    "onnxruntime",
    version=3,
    seconds=4,
    requires=("onnxruntime", "onnxscript"),
    load=load_onnxruntime,
    infeasible=_infeasible,
    graph=lambda dtype: "fp32",  # noqa: ARG005
    numerics=_numerics,
    context=_context,
    convert=convert_to_onnx,
)
def compile_onnxruntime(job: Job, folder: Path) -> Signature:
    """Quantize the ONNX graph with ONNX Runtime's own quantizers."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # A copy: the quantizers write beside what they read, or move it.
        exported = Path(shutil.copy(job.graph / _FLOAT_FILE, scratch))
        feeds = [
            dict(zip(job.signature.names, map(_array, job.signature.positional(inputs)), strict=True)) for inputs in job.calibration
        ]
        with translated("ONNX Runtime's quantizer"), quietly():
            onnx_quantizers[job.dtype](exported, folder / _MODEL_FILE, feeds)
    return job.signature


@onnx_quantizers.register("fp32")
def keep_float(source: Path, target: Path, feeds: Sequence[Feed]) -> None:  # noqa: ARG001
    """Keep every number as it is."""
    shutil.move(source, target)


@onnx_quantizers.register("int8_dynamic")
def quantize_dynamic(source: Path, target: Path, feeds: Sequence[Feed]) -> None:  # noqa: ARG001
    """Int8 weights per output channel and activations quantized while running, in matrix products only.

    Convolutions stay float: ONNX Runtime would quantize them too, and run them 4x to 6x slower than float (FACTS, section 9).
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    prepared = _prepare(source)
    quantize(
        prepared,
        target,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=not processor.has_vnni(),
        weight_type=QuantType.QInt8,
    )
    _require_quantized(target, "int8_dynamic")


@onnx_quantizers.register("int8_static")
def quantize_static(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    """Int8 weights per channel and uint8 activations scaled by calibration data, as operator pairs that the runtime fuses."""
    from onnxruntime.quantization import QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    prepared = _prepare(source)
    quantize(
        prepared, target, _Reader(feeds), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=not processor.has_vnni(),
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    _require_quantized(target, "int8_static")


def _prepare(source: Path) -> Path:
    """Infer shapes and fold batch normalization: the quantizers need both."""
    from onnxruntime.quantization import shape_inference

    prepared = source.with_name("prepared.onnx")
    shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


def _require_quantized(path: Path, dtype: str) -> None:
    """Raise unless a convolution or matrix product in `path` reads quantized numbers: a quantized softmax alone is none."""
    import onnx

    nodes = onnx.load(path).graph.node
    dequantized = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    for node in nodes:
        if node.op_type in _INTEGER_PRODUCTS or (node.op_type in _PRODUCTS and dequantized.intersection(node.input)):
            return
    raise InfeasibleRecipeError(f"{dtype} must change at least one layer, but ONNX Runtime's quantizer found none that it can")


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())


class _Reader:
    """Calibration data in the form that ONNX Runtime asks for: `get_next` gives a feed, and None at the end."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed."""
        return next(self._feeds, None)
