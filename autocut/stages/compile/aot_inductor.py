"""AOTInductor: Inductor's machine code in a package, compiled once, with frozen weights."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from autocut.errors import BundleError
from autocut.stages import processor
from autocut.stages.archive import refuse_graphs
from autocut.stages.calibration import in_steps
from autocut.stages.compile import CompileJob, ExampleCall, Run, modes
from autocut.stages.compilers import missing_compiler, quietly, translated, use_one_compile_process
from autocut.stages.device import CPU, Device
from autocut.stages.graph import Signature, export_model, load_graph
from autocut.stages.quantize import quantizers
from autocut.task.batches import pad, take

_MAPPED_BYTES = 2_000_000_000  # above it Inductor appends the weights behind the library's end, where `strip` would cut them off


def load_aot_inductor(folder: Path, signature: Signature, threads: int) -> Run:  # noqa: ARG001 -- compiled in
    """Load the machine code; one package, or one for each batch size.

    Raises:
        BundleError: a package is missing or damaged.
    """
    if signature.batch_sizes is None:
        return _load_package(folder / "model.pt2")
    packages = {size: _load_package(folder / f"model_{size}.pt2") for size in signature.batch_sizes}

    def run(*arguments: Tensor) -> Tensor:
        return packages[len(arguments[0])](*arguments)

    return run


def _infeasible(dtype: str) -> str | None:  # noqa: ARG001
    return missing_compiler(python_headers=False)


def _context(dtype: str) -> str:  # noqa: ARG001
    return f"{torch.get_num_threads()} threads, {processor.instruction_sets()}"


def package_line(call: ExampleCall) -> str:
    """Return the line that loads the first package by torch alone."""
    first, *others = call.files
    also = f"  # one package for each batch size, also {', '.join(Path(name).name for name in others)}" if others else ""
    return f"model = torch._inductor.aoti_load_package({first!r}){also}"


def _run_lines(call: ExampleCall) -> str:
    return call.in_torch(package_line(call))


@modes.register(
    "aot_inductor",
    load=load_aot_inductor,
    files="model*.pt2",
    run_lines=_run_lines,
    seconds=30,
    infeasible=_infeasible,
    context=_context,
)
def compile_aot_inductor(job: CompileJob, folder: Path) -> Signature:
    """Compile to machine code ahead of time, with the weights frozen into it.

    The package runs on this kind of CPU with the number of threads that torch has now. Graphs with convolutions get a package
    for each serving batch size, because Inductor (torch 2.13) packs convolution weights at every call when the batch is
    dynamic: measured at batch 1 and 32, a dynamic package is 1.35x and 1.0x slower than a static one for a ResNet-20, 1.6x and
    1.1x for small networks, 1.1x to 1.3x in int8. Other graphs lose at most 15% (MLP) and get one package for all sizes. So do
    graphs with free dimensions, whatever their layers.
    """
    program = load_graph(job.graph)
    options = {"freezing": quantizers.method(job.dtype).options.freezing}
    return compile_packages(program, job, folder, options, each_size=_has_convolution(program))


def compile_packages(
    program: ExportedProgram, job: CompileJob, folder: Path, options: dict[str, bool], *, each_size: bool, device: Device = CPU
) -> Signature:
    """Compile `program`, which lies on `device`, by Inductor with `options`: a package for `each_size`, or one for all.

    A program with free dimensions gets one.
    """
    use_one_compile_process()
    module = program.module(check_guards=False)
    if any(job.signature.free) or not each_size:
        inputs = tuple(map(device.move, job.signature.positional(job.calibration[0])))
        _compile_package(export_model(module, inputs, job.signature.free), options, folder / "model.pt2")
        return job.signature
    for size in in_steps(job.batch_sizes):
        inputs = tuple(map(device.move, job.signature.positional(pad(take(job.calibration[0], size), size))))
        with translated("torch.export"), quietly(), torch.no_grad():
            static = torch.export.export(module, inputs)
        _compile_package(static, options, folder / f"model_{size}.pt2")
    return job.signature.compiled_for(job.batch_sizes)


def _has_convolution(program: ExportedProgram) -> bool:
    return any("conv" in str(node.target) and node.op == "call_function" for node in program.graph.nodes)


def _compile_package(program: ExportedProgram, options: dict[str, bool], path: Path) -> None:
    with translated("AOTInductor"), quietly(), torch.no_grad():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    _slim(path)


def _slim(path: Path) -> None:
    """Drop symbol tables, and what sources say. They are two thirds of a small model's package, and nothing runs them.

    The name of a source stays, with nothing behind it: a program with torch 2.12 finds a package's metadata by it.
    """
    strip = shutil.which("strip")
    draft = path.with_suffix(".draft")
    with (
        zipfile.ZipFile(path) as package,
        zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as slim,
        tempfile.TemporaryDirectory() as scratch,
    ):
        for record in package.infolist():
            file = Path(package.extract(record, scratch))
            if file.suffix == ".cpp":
                file.write_bytes(b"")
            if file.suffix == ".so" and strip and record.file_size < _MAPPED_BYTES:
                subprocess.run([strip, "--strip-unneeded", str(file)], check=False, capture_output=True)
            with slim.open(zipfile.ZipInfo(record.filename), "w", force_zip64=True) as target, file.open("rb") as source:
                shutil.copyfileobj(source, target)
    draft.replace(path)


def _load_package(path: Path) -> Run:
    if not path.is_file():
        raise BundleError(f"{path} must be an AOTInductor package, but is missing", "export the model again")
    refuse_graphs(path)
    with quietly():
        try:
            # What `torch._inductor.aoti_load_package` wraps (torch 2.13). That one first imports the whole compiler. In a fresh
            # process, the first answer takes 2.1 s with it, 0.004 s without it (AMD EPYC, one thread).
            loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        except RuntimeError as error:
            raise BundleError(
                f"{path.name} must be an AOTInductor package for this machine, got: {str(error).splitlines()[0]}",
                "export the model again",
            ) from error

    def run(*arguments: Tensor) -> Tensor:
        # Not `__call__`, which parses the calling convention every time: a small network takes 0.13 ms without it, 0.20 ms with it
        # (torch 2.13).
        return loader.run(list(arguments))[0]

    return run
