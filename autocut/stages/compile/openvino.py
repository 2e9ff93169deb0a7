"""OpenVINO: Intel's runtime for processors, with nncf as its quantizer.

It starts from the float graph and quantizes by itself. Another dtype is one file of this folder, or of a plug-in, with a function
that takes the float model and returns the quantized one::

    @openvino_quantizers.register("int4", properties={"INFERENCE_PRECISION_HINT": "f32"})
    def quantize_int4(model: Model, feeds: Sequence[Arrays]) -> Model: ...

`feeds` are batches of typical inputs in the order of the graph. `properties` are what the runtime is asked for when it loads the
model. They are part of the artifact, because OpenVINO chooses the arithmetic while it loads: on a processor with bf16 units it
computes a float model in bf16 unless it is told not to.

OpenVINO and nncf are imported by name at run time. Importing OpenVINO (2026.4) starts a thread, so the process that workers are
forked from must not do it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.counting import format_count
from autocut.errors import BundleError, InfeasibleRecipeError, quoted
from autocut.node import node_folder
from autocut.registry import Registry
from autocut.stages import processor
from autocut.stages.compile import CompileJob, ExampleCall, OwnQuantizerOptions, Run, modes
from autocut.stages.compile.openvino_overflow import keep_to_7_bits
from autocut.stages.compilers import first_line, quietly, translated
from autocut.stages.graph import Signature, load_graph

Model = Any
"""An `openvino.Model`; OpenVINO is not imported to name it."""
Arrays = list[NDArray[Any]]
OpenVinoQuantizer = Callable[..., Model]
"""(model, feeds) -> Model; with `keep_float=k` where the quantizer `keeps_float`."""


@dataclass(frozen=True, kw_only=True)
class OpenVinoOptions(OwnQuantizerOptions):
    """What the runtime is asked for when it loads a model of this dtype, and what the processor must have for it.

    Raises:
        ValueError: a property is not one of `ARITHMETIC`.
    """

    properties: Mapping[str, str | int] = field(default_factory=dict)
    capability: str | None = None

    def __post_init__(self) -> None:
        """Check at once what would be refused in every bundle."""
        _check_properties(self.properties)


openvino_quantizers: Registry[OpenVinoQuantizer, OpenVinoOptions] = Registry("quantize.dtype in openvino", OpenVinoOptions)

_MODEL_FILE = "model.xml"
_FLOAT_FILE = "float.xml"
_PROPERTIES_FILE = "model.json"
ARITHMETIC = frozenset(
    {
        "INFERENCE_PRECISION_HINT", "EXECUTION_MODE_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "KV_CACHE_PRECISION",
        "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION", "KEY_CACHE_GROUP_SIZE", "VALUE_CACHE_GROUP_SIZE",
        "CPU_DENORMALS_OPTIMIZATION", "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE",
    }
)  # fmt: skip
"""Properties that an artifact may ask for. Others name files: with CACHE_DIR, a bundle of a stranger would write where it likes."""
FLOAT: Mapping[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32"}
_COMPILED_PRODUCTS = ("FullyConnected", "MatMul", "Convolution", "Deconvolution")
_PROBE_S = 60.0
_PROBE = """
import json, numpy as np, openvino as ov
x = ov.opset13.parameter([-1, 8], np.float32)
weights = ov.opset13.constant(np.ones((8, 8), np.float32))
core = ov.Core()
model = core.compile_model(ov.Model([ov.opset13.matmul(x, weights, False, False)], [x]), "CPU", {"INFERENCE_NUM_THREADS": 1})
answer = model([np.ones((2, 8), np.float32)])[0]
assert (answer == 8).all(), "a matrix product is wrong"
print(json.dumps(list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))))
"""


def load_openvino(folder: Path, signature: Signature, threads: int) -> Run:  # noqa: ARG001 -- inputs go by position
    """Compile the model for this processor, to run with `threads` threads.

    Raises:
        BundleError: a file is missing or damaged.
    """
    openvino = load_runtime()
    try:
        properties = _check_properties(json.loads((folder / _PROPERTIES_FILE).read_text()))
        core = openvino.Core()
        model = core.read_model(folder / _MODEL_FILE)
        if not processor.sums_int8_in_32_bits():
            keep_to_7_bits(model)
        compiled = core.compile_model(model, "CPU", {**properties, **serving(threads)})
    except (OSError, ValueError, RuntimeError) as error:
        raise BundleError(f"{_MODEL_FILE} must be a model for OpenVINO, got: {first_line(error)}", "export it again") from error
    request = compiled.create_infer_request()

    def run(*arguments: Tensor) -> Tensor:
        # By position, in a dictionary: for a list, OpenVINO (2026.4) first fetches all tensors of the request, which takes 0.03 ms,
        # and 0.06 ms once ONNX Runtime is imported too, as in a search's process.
        outputs = request.infer({at: _array(tensor) for at, tensor in enumerate(arguments)}, share_inputs=True)
        return torch.from_numpy(outputs[0])

    return run


def _check_properties(properties: Any) -> dict[str, str | int]:
    """Return what an artifact asks the runtime for.

    Raises:
        ValueError: it is not a table of `ARITHMETIC`.
    """
    if not isinstance(properties, Mapping):
        raise ValueError("properties must be a table")
    if others := sorted(set(properties) - ARITHMETIC):
        raise ValueError(f"properties must decide arithmetic alone, got {quoted(others[0])}")
    if wrong := [name for name, value in properties.items() if not isinstance(value, str | int)]:
        raise ValueError(f"property {wrong[0]} must be a text or a whole number")
    return dict(properties)


def serving(threads: int) -> dict[str, Any]:
    """One stream of `threads` threads. They are not pinned: a pinned thread would share its core with the model timed beside it."""
    return {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}


def _infeasible(dtype: str) -> str | None:
    if dtype not in openvino_quantizers:
        return f"OpenVINO has no kernel for {dtype}"
    capabilities, reason = _probe()
    if reason is not None:
        return reason
    wanted = openvino_quantizers.method(dtype).options.capability
    return None if wanted is None or wanted in capabilities else f"this processor has no {wanted} units, says OpenVINO"


def _numerics(dtype: str) -> str | None:
    return None if dtype == "fp32" else f"{dtype} by openvino, {_context(dtype)}"


def _context(dtype: str) -> str:
    libraries = ", ".join(f"{name} {_version(name)}" for name in ("openvino", "nncf"))
    return f"quantizer v{openvino_quantizers.method(dtype).version}, {processor.int8_range()}, {libraries}"


def _run_lines(call: ExampleCall) -> str:
    _, properties, model = call.files
    return (
        "import json, pathlib\nimport numpy as np, openvino\n"
        f"properties = json.loads(pathlib.Path({properties!r}).read_text())\n"
        f"properties |= {serving(call.threads)!r}\n"
        f"model = openvino.Core().compile_model({model!r}, 'CPU', properties)\n"
        f"output = model({{{', '.join(f'{at}: {array}' for at, array in enumerate(call.arrays))}}})[0]"
    )


def convert_to_openvino(graph: Path, folder: Path) -> None:
    """Convert the float graph without a detour over ONNX: BERT-base takes 5 s instead of 17 s (AMD EPYC, OpenVINO 2026.4).

    `openvino.convert_model` would do the same, but reports each call to a server of its makers.
    """
    with translated("OpenVINO's converter"), quietly(), torch.no_grad():
        openvino = load_runtime()
        decoders = importlib.import_module("openvino.frontend.pytorch.fx_decoder")
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        decoder = decoders.TorchFXPythonDecoder.from_exported_program(load_graph(graph))  # `convert` needs it alive
        model = frontend.convert(frontend.load(decoder))
        wanted = len(Signature.read(graph).names)
        if len(model.inputs) != wanted:
            raise InfeasibleRecipeError(f"OpenVINO must keep the model's {format_count(wanted, 'input')}, got {len(model.inputs)}")
        openvino.save_model(model, folder / _FLOAT_FILE, compress_to_fp16=False)


@modes.register(
    "openvino",
    requires=("openvino", "nncf"),
    load=load_openvino,
    files="model.*",
    run_lines=_run_lines,
    runs_with=("openvino",),
    seconds=5,
    seconds_per_100mb=2.3,
    infeasible=_infeasible,
    numerics=_numerics,
    context=_context,
    convert=convert_to_openvino,
    quantizers=openvino_quantizers,
    takes_any_threads=True,
    names_its_libraries=True,
)
def compile_openvino(job: CompileJob, folder: Path) -> Signature:
    """Quantize the graph with nncf; OpenVINO compiles it for the processor when it loads."""
    openvino = load_runtime()
    feeds = [list(map(_array, job.signature.positional(inputs))) for inputs in job.calibration]
    properties = openvino_quantizers.method(job.dtype).options.properties
    with translated("OpenVINO"), quietly():
        options = {"keep_float": job.keep_float} if job.keep_float else {}
        model = openvino_quantizers[job.dtype](openvino.Core().read_model(job.graph / _FLOAT_FILE), feeds, **options)
        openvino.save_model(model, folder / _MODEL_FILE, compress_to_fp16=False)
        (folder / _PROPERTIES_FILE).write_text(json.dumps(dict(properties)) + "\n")
        if job.dtype != "fp32":
            _require_arithmetic(folder, job.dtype)
    return job.signature


@openvino_quantizers.register("fp32", properties=FLOAT, seconds_per_100mb=0.1)
def keep_float(model: Model, feeds: Sequence[Arrays]) -> Model:  # noqa: ARG001
    """Keep every number as it is, and compute in float32."""
    return model


@openvino_quantizers.register("bf16", properties={"INFERENCE_PRECISION_HINT": "bf16"}, capability="BF16", seconds_per_100mb=0.1)
def compute_in_bf16(model: Model, feeds: Sequence[Arrays]) -> Model:  # noqa: ARG001
    """Compute in bf16. Inputs, outputs and the stored weights stay float32, so the file is no smaller."""
    return model


@openvino_quantizers.register("fp16", properties={"INFERENCE_PRECISION_HINT": "f16"}, capability="FP16", seconds_per_100mb=0.1)
def compute_in_fp16(model: Model, feeds: Sequence[Arrays]) -> Model:  # noqa: ARG001
    """Compute in fp16. Inputs, outputs and the stored weights stay float32, so the file is no smaller."""
    return model


def load_runtime() -> Any:
    """Import openvino. It must not be imported in the process that workers are forked from: importing it starts a thread."""
    return importlib.import_module("openvino")


@contextlib.contextmanager
def load_nncf() -> Iterator[Any]:
    """Import nncf without its reports to a server (read once, when it is imported), and without its progress bars on stdout."""
    os.environ.setdefault("NNCF_CI", "1")
    with contextlib.redirect_stdout(io.StringIO()):
        yield importlib.import_module("nncf")


def _require_arithmetic(folder: Path, dtype: str) -> None:
    """Raise unless OpenVINO computes a layer of the model in `folder` in `dtype`, or reads int8 weights there.

    Raises:
        InfeasibleRecipeError: every layer computes in float32, from float32 weights.
    """
    compiled = load_runtime().Core().compile_model(
        folder / _MODEL_FILE, "CPU", {**json.loads((folder / _PROPERTIES_FILE).read_text()), **serving(1)}
    )  # fmt: skip
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    found = {info["runtimePrecision"].astype(str) for info in infos if info["layerType"].astype(str) in _COMPILED_PRODUCTS}
    if not found - {"f32"}:
        raise InfeasibleRecipeError(f"{dtype} must change at least one layer, but OpenVINO computes all of them in float32")


@cache
def _probe() -> tuple[tuple[str, ...], str | None]:
    """Return what OpenVINO says that this processor has, and the reason why it does not run here, if it does not.

    It is tried in a process of its own, once for each version and machine: on some AMD processors OpenVINO dies of SIGFPE. A probe
    without an answer is not remembered: the machine may have been busy.
    """
    machine = hashlib.sha256(processor.instruction_sets().encode()).hexdigest()[:8]
    memory = node_folder() / f"openvino-{_version('openvino')}-{machine}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        capabilities, reason = json.loads(memory.read_text())
        return tuple(capabilities), reason
    try:
        found = _try_out()
    except subprocess.TimeoutExpired:
        return (), f"OpenVINO does not answer within {_PROBE_S:g} s on this machine"
    memory.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=memory.parent)  # nobody can guess this name and put a link there
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(found))
    draft = Path(name)
    draft.chmod(0o644)
    draft.replace(memory)
    return found


def _try_out() -> tuple[tuple[str, ...], str | None]:
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_S, check=False)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        return (), f"OpenVINO does not run on this machine: {last[:200]}"
    return tuple(json.loads(done.stdout.strip().rpartition("\n")[2])), None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())
