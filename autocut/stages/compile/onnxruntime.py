"""ONNX Runtime: its own graph format, its own quantizers, its own kernels.

It starts from the float graph and quantizes by itself, because the int8 graphs of torch do not translate to its kernels. Another
dtype is one file of this folder, or of a plug-in, with a function that reads a float model from one file and writes the quantized
one to another::

    @onnx_quantizers.register("int4")  # the dtype's name in `stages.quantize`
    def quantize_int4(source: Path, target: Path, feeds: Sequence[Feed]) -> None: ...

`feeds` are batches of typical inputs by input name. The function may move `source` and write beside it. If it changes no layer, it
raises `InfeasibleRecipeError` (`require_quantized`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.errors import BundleError, InfeasibleRecipeError
from autocut.recipe import UNTOUCHED
from autocut.registry import Registry
from autocut.stages import processor
from autocut.stages.compile import CompileJob, ExampleCall, OwnQuantizerOptions, Run, modes
from autocut.stages.compilers import first_line, quietly, translated
from autocut.stages.graph import Signature, load_graph

Feed = dict[str, NDArray[Any]]
OnnxQuantizer = Callable[..., None]
"""(source, target, feeds) -> None; with `keep_float=k` where the quantizer `keeps_float`."""

onnx_quantizers: Registry[OnnxQuantizer, OwnQuantizerOptions] = Registry("quantize.dtype in onnxruntime", OwnQuantizerOptions)

_MODEL_FILE = "model.onnx"
_FLOAT_FILE = "float.onnx"
_OUTPUT = "output"
_NO_SPINNING = ("session.force_spinning_stop", "1")
"""Threads spin for work during a call, not after it."""
EXACT_SUMS = ("session.x64quantprecision", "1")
"""Shifts weights beyond 7 bits, of a model that was quantized elsewhere, to unsigned numbers: 0.002 instead of 0.43 of the largest
output in the worst case (1.32). Others stay as they are. See `ask_for_exact_sums`."""
_ERRORS_ONLY = 3
_FLOAT, _ = UNTOUCHED.lowering
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INTEGER_PRODUCTS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits")


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
    # Threads that wait in a loop for the next call would slow down the model that is timed next (1.32: for about 45 ms).
    options.add_session_config_entry(*_NO_SPINNING)
    ask_for_exact_sums(options)
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


def ask_for_exact_sums(options: Any) -> None:
    """Set `EXACT_SUMS` in session options where int8 sums overflow, and nowhere else.

    Since 1.25, ONNX Runtime obeys it on every x86 processor with AVX2. With VNNI the sums are exact anyway, and its kernels for
    unsigned weights do not use VNNI: int8 becomes as slow as fp32 (1.32). This can go when `MlasPlatformU8S8Overflow` is false
    on processors with VNNI again.

    References:
        https://github.com/microsoft/onnxruntime/pull/27671, which made it true there
    """
    if not processor.sums_int8_in_32_bits():
        options.add_session_config_entry(*EXACT_SUMS)


def _infeasible(dtype: str) -> str | None:
    return None if dtype in onnx_quantizers else f"ONNX Runtime has no kernel for {dtype}"


def _numerics(dtype: str) -> str | None:
    return None if dtype == _FLOAT else f"{dtype} by onnxruntime, {_context(dtype)}"


def _context(dtype: str) -> str:
    quantizer = f"quantizer v{onnx_quantizers.method(dtype).version}"
    return quantizer if dtype == _FLOAT else f"{quantizer}, {processor.int8_range()}"


def _run_lines(call: ExampleCall) -> str:
    (file,) = call.files
    no_spinning = f"options.add_session_config_entry{_NO_SPINNING!r}  # as it was timed\n" if call.threads > 1 else ""
    return (
        "from pathlib import Path\nimport numpy as np, onnxruntime\noptions = onnxruntime.SessionOptions()\n"
        f"options.intra_op_num_threads = {call.threads}\n"
        f"{no_spinning}"
        "processor = Path('/proc/cpuinfo')\n"
        "if not (processor.exists() and 'vnni' in processor.read_text()):  # with VNNI, it would slow int8 down\n"
        f"    options.add_session_config_entry{EXACT_SUMS!r}  # int8 sums of other x86 processors overflow\n"
        f"session = onnxruntime.InferenceSession({file!r}, options, providers=['CPUExecutionProvider'])\n"
        f"arrays = [{', '.join(call.arrays)}]\n"
        "feed = {node.name: array for node, array in zip(session.get_inputs(), arrays, strict=True)}\n"
        "output = session.run(None, feed)[0]"
    )


def convert_to_onnx(graph: Path, folder: Path) -> None:
    """Export the float graph to ONNX, which takes much longer than to quantize it (digits: 1.1 s, then 0.1 s).

    The exporter (torch 2.13) notes at each node the line of source that it came from. That is half of a small file, and does not
    concern the people who get the model: it is left out. So are the shapes that the exporter notes between the nodes. Readers of
    the file infer them, and the dynamic quantizer of ONNX Runtime 1.30 finds that they contradict what it has transposed.
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
    version=4,
    requires=("onnxruntime", "onnxscript"),
    # What torch's exporter to ONNX imports when it first runs (torch 2.13).
    late_imports=("torch.onnx._internal.exporter._compat", "onnxscript.function_libs.torch_lib.ops"),
    load=load_onnxruntime,
    files=_MODEL_FILE,
    run_lines=_run_lines,
    runs_with=("onnxruntime",),
    takes_any_threads=True,
    seconds=4,
    seconds_per_100mb=4.0,
    infeasible=_infeasible,
    numerics=_numerics,
    context=_context,
    convert=convert_to_onnx,
    quantizers=onnx_quantizers,
)
def compile_onnxruntime(job: CompileJob, folder: Path) -> Signature:
    """Quantize the ONNX graph with ONNX Runtime's own quantizers."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        # A copy: the quantizers write beside what they read, or move it.
        exported = Path(shutil.copy(job.graph / _FLOAT_FILE, scratch))
        feeds = [
            dict(zip(job.signature.names, map(_array, job.signature.positional(inputs)), strict=True)) for inputs in job.calibration
        ]
        with translated("ONNX Runtime's quantizer"), quietly():
            options = {"keep_float": job.keep_float} if job.keep_float else {}
            onnx_quantizers[job.dtype](exported, folder / _MODEL_FILE, feeds, **options)
    return job.signature


@onnx_quantizers.register("fp32", seconds_per_100mb=0.2)
def keep_float(source: Path, target: Path, feeds: Sequence[Feed]) -> None:  # noqa: ARG001
    """Keep every number as it is."""
    shutil.move(source, target)


def prepare(source: Path) -> Path:
    """Infer shapes and fold batch normalization, which the quantizers need, and return the new file."""
    from onnxruntime.quantization import shape_inference

    prepared = source.with_name("prepared.onnx")
    shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


def require_quantized(path: Path, dtype: str) -> None:
    """Raise unless a convolution or matrix product in `path` reads quantized numbers; a quantized softmax alone does not count.

    Raises:
        InfeasibleRecipeError: none does.
    """
    import onnx

    nodes = onnx.load(path).graph.node
    dequantized = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    for node in nodes:
        if node.op_type in _INTEGER_PRODUCTS or (node.op_type in _PRODUCTS and dequantized.intersection(node.input)):
            return
    raise unchanged(dtype)


def unchanged(dtype: str) -> InfeasibleRecipeError:
    """Return the error of a model in which `dtype` changes nothing."""
    return InfeasibleRecipeError(f"{dtype} must change at least one layer, but ONNX Runtime's quantizer found none that it can")


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())
