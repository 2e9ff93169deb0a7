"""Turn a model into a saved, runnable artifact for a pair of dtype and compile mode, or say why this pair cannot be.

"int8" means nothing without a mode: Inductor takes a quantized torch graph, ONNX Runtime has its own quantizer, and eager has no
kernel for it.

    lower(model, "int8_static", "onnxruntime", calibration, folder)
    predict = load(folder, "onnxruntime")                        needs neither the model nor its code, and unpickles nothing

`lower` takes three steps. A caller that keeps the results of the first two can use them again:

    lower_graph(model, graph_dtype(dtype, mode), calibration, graph)      once for all modes that start from this graph
    convert_graph(graph, mode, start)                                     if `converts(mode)`: once for all its dtypes of this graph
    compile_graph(start, dtype, mode, calibration, folder)                from `graph` where the mode does not convert

A dtype such as ``int8_static:4`` keeps the 4 layers in float whose quantization deviates the output the most.

All of this is for models that the processor serves, unless `device` names a GPU. Graphs and conversions are the same for both.

A mode that compiles for fixed batch sizes gets each batch in pieces of the largest size, and the rest padded to the next size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from autocut.counting import format_count
from autocut.errors import InfeasibleRecipeError, quoted
from autocut.recipe import UNTOUCHED, without_kept
from autocut.registry import Method
from autocut.stages.compile import BY_DEVICE, CompileJob, Compiler, ModeOptions, Run, mode_names, modes_on
from autocut.stages.device import CPU, Device
from autocut.stages.graph import GRAPH_VERSION, Signature, export_model, save_graph, with_limits
from autocut.stages.libraries import versions_of
from autocut.stages.quantize import quantizers
from autocut.task.batches import Inputs, batch_length, pad
from autocut.task.dimensions import Dynamic
from autocut.task.exporting import PositionalModel

Predict = Callable[[Inputs], Tensor]
"""A loaded model: takes a batch in the form of the task, gives the output tensor."""
SERVING_BATCH_SIZES = (1, 32)


def pairs(device: Device = CPU) -> tuple[tuple[str, str], ...]:
    """Every dtype with every mode of `device`, feasible or not."""
    return tuple((dtype, mode) for dtype in quantizers.names() for mode in modes_on(device.kind).names())


def elsewhere_reason(mode: str, device: Device) -> str | None:
    """Say that `mode` runs on other devices alone, or return None."""
    if mode in modes_on(device.kind) or mode not in mode_names():
        return None
    return f"{mode} runs on {' and '.join(kind for kind in BY_DEVICE if mode in modes_on(kind))}, not on {device.kind}"


def infeasible_reason(dtype: str, mode: str, device: Device = CPU) -> str | None:
    """Say why this pair cannot run any model on the `device` of this machine, or return None. Compiles nothing.

    Raises:
        UnknownNameError: `dtype` or `mode` is not registered.
    """
    dtype, kept = without_kept(dtype)
    if reason := elsewhere_reason(mode, device) or device.missing():
        return reason
    quantizer, compiler = quantizers.method(dtype), _mode(mode, device)
    for method in (quantizer, compiler):
        if missing := method.missing():
            return f"{method.axis} {method.name} needs {', '.join(missing)}: {method.install_command()}"
    reason = quantizer.options.no_kernel.get(mode) or compiler.options.infeasible(dtype)
    if reason is None and graph_dtype(dtype, mode, device) == dtype:
        reason = quantizer.options.machine() if device.is_cpu else quantizer.options.gpu(device)
    if reason is None and kept and not keeps_float(dtype, mode, device):
        reason = f"{mode} cannot keep {format_count(kept, 'layer')} of {dtype} in float"
    return reason


def keeps_float(dtype: str, mode: str, device: Device = CPU) -> bool:
    """Whether the pair can keep its most sensitive layers in float."""
    own = _mode(mode, device).options.quantizers
    if own is None:
        return quantizers.method(dtype).options.keeps_float
    return dtype in own and own.method(dtype).options.keeps_float


def fixed_shape_reason(mode: str, dynamic: Dynamic | None, device: Device = CPU) -> str | None:
    """Say why `mode` cannot run a model with the free dimensions of `dynamic`, or return None."""
    if not dynamic or _mode(mode, device).options.free_dimensions:
        return None
    return f"{mode} compiles for known sizes, but the task's dynamic= leaves {_names(dynamic)} free"


def _names(dynamic: Dynamic) -> str:
    return ", ".join(sorted({free for axes in dynamic.values() for free in axes.values()}))


def guessed_speedup(dtype: str, mode: str, device: Device = CPU, *, has_convolutions: bool) -> float | None:
    """First guess of the speed-up over the untouched model's lowering, as dtype and mode registered it; None where neither did.

    A dtype of linear layers alone brings nothing to a model with convolutions.
    """
    options, compiler = quantizers.method(without_kept(dtype)[0]).options, _mode(mode, device).options
    if options.speedup is None and compiler.speedup is None:
        return None
    own = 1.0 if has_convolutions and not options.convolutions else options.speedup or 1.0
    return own * (compiler.speedup or 1.0)


def is_accelerated(dtype: str, device: Device = CPU) -> bool:
    """Whether the `device` of this machine has instructions for the products of `dtype`: what it runs on a GPU has them."""
    return not device.is_cpu or quantizers.method(without_kept(dtype)[0]).options.accelerated()


def seconds_until_run(mode: str, device: Device = CPU) -> float:
    """First guess of what a mode takes until it runs, as it registered it."""
    return _mode(mode, device).options.seconds


def seconds_per_100mb(dtype: str, mode: str, device: Device = CPU) -> float | None:
    """Seconds of one core to lower each 100 MB of float32 weights, as mode and dtype registered them; None: one of them has not.

    Measured with BERT-base (438 MB) on one thread of an AMD EPYC, 2026-11-29.
    """
    dtype, kept = without_kept(dtype)
    compiler, own = _mode(mode, device).options, _mode(mode, device).options.quantizers
    quantizer = quantizers.method(dtype).options if own is None else dtype in own and own.method(dtype).options
    if kept or not quantizer or compiler.seconds_per_100mb is None or quantizer.seconds_per_100mb is None:
        return None
    return compiler.seconds_per_100mb + quantizer.seconds_per_100mb


def require_feasible(dtype: str, mode: str, device: Device = CPU) -> None:
    """Raise unless the pair can run on the `device` of this machine.

    Raises:
        InfeasibleRecipeError: with the reason.
        UnknownNameError: `dtype` or `mode` is not registered.
    """
    if reason := infeasible_reason(dtype, mode, device):
        raise InfeasibleRecipeError(f"{dtype} with {mode} cannot run: {reason}")


def numerics(dtype: str, mode: str, device: Device = CPU) -> str:
    """Name and version of the arithmetic of a pair: pairs of one name compute the same, so they share one accuracy.

    The name also holds what of the machine decides the numbers. An infeasible pair has the name of its dtype's quantizer.
    """
    plain, kept = without_kept(dtype)
    own = _mode(mode, device).options.numerics(plain) if infeasible_reason(dtype, mode, device) is None else None
    return (own or _quantizer_version(plain)) + _kept_words(kept) + _on(device)


def graph_dtype(dtype: str, mode: str, device: Device = CPU) -> str:
    """The dtype whose graph `mode` starts from: the untouched model's for a mode with quantizers of its own, otherwise `dtype`."""
    untouched, _ = UNTOUCHED.lowering
    return dtype if _mode(mode, device).options.quantizers is None else untouched


def converts(mode: str, device: Device = CPU) -> bool:
    """Whether `mode` first makes something of a graph, for all dtypes that start from this graph."""
    return _mode(mode, device).options.convert is not None


def takes_any_threads(mode: str, device: Device = CPU) -> bool:
    """Whether an artifact of `mode` may be loaded with more threads than it is served with."""
    return _mode(mode, device).options.takes_any_threads


def is_compiled_ahead(mode: str, device: Device = CPU) -> bool:
    """Whether an artifact of `mode` is machine code for the device, and the number of threads, that it was made with."""
    options = _mode(mode, device).options
    return options.is_machine_code or (not options.takes_any_threads and options.context(UNTOUCHED.lowering[0]) is not None)


def conversion_version(mode: str, device: Device = CPU) -> str:
    """Version of `convert_graph` for `mode`, and of the libraries that no other part of the stage key names."""
    method = _mode(mode, device)
    libraries = versions_of(method.requires) if method.options.names_its_libraries else {}
    return ", ".join([f"{mode} v{method.version}", *(f"{name} {version}" for name, version in libraries.items())])


def method_versions(dtype: str, mode: str, device: Device = CPU) -> str:
    """Versions of a pair's methods, and what of the machine decides the result, such as threads: part of the stage key."""
    compiler, (plain, kept) = _mode(mode, device), without_kept(dtype)
    extra = compiler.options.context(plain) if infeasible_reason(dtype, mode, device) is None else None
    own = _quantizer_version(plain) if graph_dtype(dtype, mode, device) == dtype else f"{plain} v{quantizers.method(plain).version}"
    words = f"{own}{_kept_words(kept)}, {mode} v{compiler.version}, graph v{GRAPH_VERSION}" + (f", {extra}" if extra else "")
    return words + _on(device)


def lower_graph(
    model: torch.nn.Module, dtype: str, calibration: Sequence[Inputs], folder: Path, *, dynamic: Dynamic | None = None
) -> None:
    """Quantize `model` to `dtype` and write the exported graph to `folder`. Several modes can compile it from there.

    `dynamic` names dimensions that may differ between batches, as `Task.dynamic` does.

    Raises:
        InfeasibleRecipeError: the dtype changes no layer of this model.
        CompilerError: the model cannot be exported or quantized.
    """
    signature = Signature.of(calibration[0], dynamic)
    positional = [signature.positional(inputs) for inputs in calibration]
    names = signature.names if signature.form == "dict" else None
    plain, kept = without_kept(dtype)
    options = {"keep_float": kept} if kept else {}
    quantized = quantizers[plain](PositionalModel(model, names, signature.free), positional, **options)
    program = export_model(quantized, positional[0], signature.free)
    save_graph(program, with_limits(signature, program), folder)


def convert_graph(graph: Path, mode: str, folder: Path, device: Device = CPU) -> None:
    """Convert the graph in folder `graph` to the format of `mode`, and write it to `folder`.

    Raises:
        CompilerError: the mode's format cannot hold the graph.
        ValueError: the mode converts nothing.
    """
    convert = _mode(mode, device).options.convert
    if convert is None:
        raise ValueError(f"compile.mode {quoted(mode)} converts no graph")
    convert(graph, folder)
    Signature.read(graph).write(folder)


def compile_graph(
    start: Path,
    dtype: str,
    mode: str,
    calibration: Sequence[Inputs],
    folder: Path,
    *,
    batch_sizes: Sequence[int] = SERVING_BATCH_SIZES,
    device: Device = CPU,
) -> None:
    """Write the artifact of the model in folder `start` to `folder`; see `lower`.

    `lower_graph` wrote `start` for `graph_dtype(dtype, mode)`, or `convert_graph` if the mode converts. It is not changed.
    """
    require_feasible(dtype, mode, device)
    signature = Signature.read(start)
    if reason := fixed_shape_reason(mode, signature.dynamic, device):
        raise InfeasibleRecipeError(f"{dtype} with {mode} cannot run: {reason}")
    device.open(serves=True)
    plain, kept = without_kept(dtype)
    job = CompileJob(start, signature, plain, calibration, tuple(sorted(set(batch_sizes))), kept)
    modes_on(device.kind)[mode](job, folder).write(folder)


def lower(
    model: torch.nn.Module,
    dtype: str,
    mode: str,
    calibration: Sequence[Inputs],
    folder: Path,
    *,
    batch_sizes: Sequence[int] = SERVING_BATCH_SIZES,
    graph: Path | None = None,
    dynamic: Dynamic | None = None,
    device: Device = CPU,
) -> None:
    """Write the artifact of `model` in `dtype` under `mode` to `folder`.

    Args:
        model: Trained model. Not modified, and not read where `graph` is given.
        dtype: A registered dtype.
        mode: A registered compile mode.
        calibration: Batches of typical inputs; the first is the export example.
        folder: An existing folder.
        batch_sizes: Sizes that modes with fixed sizes compile for.
        graph: Folder that `lower_graph` wrote for `graph_dtype(dtype, mode)`; None makes a temporary one.
        dynamic: Dimensions that may differ between batches; see `lower_graph`.
        device: What serves the model.

    Raises:
        InfeasibleRecipeError: the pair cannot be real on this machine or with this model.
        CompilerError: a compiler, exporter or quantizer refused the model.
    """
    require_feasible(dtype, mode, device)
    with tempfile.TemporaryDirectory() as scratch:
        start = graph or Path(tempfile.mkdtemp(dir=scratch))
        if graph is None:
            lower_graph(model, graph_dtype(dtype, mode, device), calibration, start, dynamic=dynamic)
        if converts(mode, device):
            exported, start = start, Path(tempfile.mkdtemp(dir=scratch))
            convert_graph(exported, mode, start, device)
        compile_graph(start, dtype, mode, calibration, folder, batch_sizes=batch_sizes, device=device)


def load(folder: Path, mode: str, threads: int = 1, device: Device = CPU) -> Predict:
    """Load an artifact for prediction, without the user's code and without unpickling.

    `threads` is for runtimes with threads of their own. Torch's modes use torch's threads: call `torch.set_num_threads` before
    `load`, and before `lower` too, because ahead-of-time code has the number compiled in.

    A model on a GPU takes inputs of either device, and answers where they lie. An answer on the GPU may be read at once by other
    work there; a clock must wait for it (`Device.wait`).

    Raises:
        BundleError: a file is missing or damaged.
        CompilerError: a mode that compiles at load time failed.
        InputError: this process cannot open `device`.
    """
    device.open(serves=True)
    signature = Signature.read(folder)
    run = _mode(mode, device).options.load(folder, signature, threads)
    whole = run if signature.batch_sizes is None else _in_pieces(run, signature.batch_sizes)

    def predict(inputs: Inputs) -> Tensor:
        # Not inference_mode: padding would make inference tensors, for which torch.compile compiles again.
        with torch.no_grad():
            return whole(*signature.positional(inputs))

    def predict_there(inputs: Inputs) -> Tensor:
        with torch.no_grad():
            given = signature.positional(inputs)
            return device.answer(whole(*map(device.move, given)), given)

    return predict if device.is_cpu else predict_there


def _in_pieces(run: Run, sizes: tuple[int, ...]) -> Run:
    """Serve batches of any length by code that takes only batches of `sizes`, in ascending order."""
    largest = sizes[-1]

    def serve(*arguments: Tensor) -> Tensor:
        length = batch_length(arguments)
        if length in sizes:
            return run(*arguments)
        pieces = [tuple(tensor[start : start + largest] for tensor in arguments) for start in range(0, length, largest)]
        return torch.cat([_padded(piece) for piece in pieces])

    def _padded(piece: tuple[Tensor, ...]) -> Tensor:
        length = batch_length(piece)
        size = next(size for size in sizes if size >= length)
        padded = pad(piece, size)
        return run(*padded)[:length]

    return serve


def _mode(mode: str, device: Device) -> Method[Compiler, ModeOptions]:
    return modes_on(device.kind).method(mode)


def _on(device: Device) -> str:
    """What a key says of the device: nothing of the processor, which no key has ever named."""
    return "" if device.is_cpu else f", on {device.described}"


def _kept_words(kept: int) -> str:
    """What a key says of kept layers; always in the plural: a key keeps its form."""
    return f", {kept} layers in float" if kept else ""


def _quantizer_version(dtype: str) -> str:
    method = quantizers.method(dtype)
    context = method.options.context()
    return f"{dtype} v{method.version}" + (f" ({context})" if context else "")
