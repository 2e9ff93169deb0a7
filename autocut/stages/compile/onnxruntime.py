"""ONNX Runtime: its own graph format, its own quantizers (`onnx_quantizers`), its own kernels."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.errors import BundleError
from autocut.recipe import UNTOUCHED
from autocut.stages import processor
from autocut.stages.compile import CompileJob, ExampleCall, Run, modes
from autocut.stages.compile.onnx_quantizers import onnx_quantizers
from autocut.stages.compilers import first_line, quietly, translated
from autocut.stages.graph import Signature, load_graph

_MODEL_FILE = "model.onnx"
_FLOAT_FILE = "float.onnx"
_OUTPUT = "output"
_ERRORS_ONLY = 3
_FLOAT, _ = UNTOUCHED.lowering


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
    return None if dtype in onnx_quantizers else f"ONNX Runtime has no kernel for {dtype}"


def _numerics(dtype: str) -> str | None:
    return None if dtype == _FLOAT else f"{dtype} by onnxruntime, {_context(dtype)}"


def _context(dtype: str) -> str:
    quantizer = f"quantizer v{onnx_quantizers.method(dtype).version}"
    return quantizer if dtype == _FLOAT else f"{quantizer}, {processor.int8_range()}"


def _run_lines(call: ExampleCall) -> str:
    (file,) = call.files
    return (
        "import numpy as np, onnxruntime\noptions = onnxruntime.SessionOptions()\n"
        f"options.intra_op_num_threads = {call.threads}\n"
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
    version=3,
    requires=("onnxruntime", "onnxscript"),
    # What torch's exporter to ONNX imports when it first runs (torch 2.13).
    late_imports=("torch.onnx._internal.exporter._compat", "onnxscript.function_libs.torch_lib.ops"),
    load=load_onnxruntime,
    files=_MODEL_FILE,
    run_lines=_run_lines,
    runs_with=("onnxruntime",),
    seconds=4,
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
            onnx_quantizers[job.dtype](exported, folder / _MODEL_FILE, feeds)
    return job.signature


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())
