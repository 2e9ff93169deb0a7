"""`torch.compile` on a GPU: Inductor writes kernels for Triton when the model is loaded, and again on every machine.

The artifact is the graph; compiling is part of the cold start. Each serving batch size is compiled. Weights are not frozen into
the code: what freezing brings on a processor is its int8 kernels.

Two of the modes record a call as a CUDA graph and play it back: the GPU then gets one launch instead of one for each kernel. A
recording writes each answer to the same memory, so the answer is copied before the next call overwrites it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from autocut.stages.compile import CompileJob, Compiler, ExampleCall, Run, cuda_modes
from autocut.stages.compile.eager import keep_graph
from autocut.stages.compile.eager_cuda import cuda_graph_lines
from autocut.stages.compile.torch_compile import load_compiled
from autocut.stages.compilers import missing_compiler
from autocut.stages.device import Device
from autocut.stages.graph import GRAPH_FILE, Signature

_CUDA = Device("cuda")
_VOLTA = (7, 0)
_UNTIL_RECORDED = 3
"""The first call compiles, the second one records, the third one plays back (torch 2.13)."""


def missing_triton(*, python_headers: bool) -> str | None:
    """Reason why Inductor cannot compile for the GPU of this machine, or None; see `missing_compiler`."""
    if importlib.util.find_spec("triton") is None:
        return "Inductor needs triton for GPUs: pip install triton"
    return _CUDA.below(_VOLTA, "Triton compiles") or missing_compiler(python_headers=python_headers)


def load_compiled_cuda(folder: Path, signature: Signature, threads: int, *, mode: str) -> Run:
    """Compile the graph for the GPU, without CUDA graphs.

    Raises:
        CompilerError: Inductor refuses the graph.
    """
    return load_compiled(folder, signature, threads, mode=mode, device=_CUDA)


def load_recorded(folder: Path, signature: Signature, threads: int, *, mode: str) -> Run:
    """Compile the graph for the GPU, and record it as a CUDA graph for each batch size.

    Raises:
        CompilerError: Inductor refuses the graph.
    """
    play_back = load_compiled(folder, signature, threads, mode=mode, device=_CUDA, calls=_UNTIL_RECORDED)

    def run(*arguments: Tensor) -> Tensor:
        return play_back(*arguments).clone()

    return run


def _infeasible(dtype: str) -> str | None:  # noqa: ARG001
    return missing_triton(python_headers=True)


def _run_lines(call: ExampleCall, *, name: str) -> str:
    return cuda_graph_lines(call, f"  # torch.compile it for {name}")


def _compile_when_loaded(job: CompileJob, folder: Path) -> Signature:
    keep_graph(job, folder)
    return job.signature.compiled_for(job.batch_sizes, freezing=False)


def _register(name: str, load: Callable[..., Run], *, mode: str, seconds: float, speedup: float) -> Callable[[Compiler], Compiler]:
    """Register a mode of `torch.compile` as `name`."""
    return cuda_modes.register(
        name,
        load=partial(load, mode=mode),
        files=GRAPH_FILE,
        run_lines=partial(_run_lines, name=name),
        seconds=seconds,
        speedup=speedup,
        infeasible=_infeasible,
        free_dimensions=False,
    )


@_register("torch_compile", load_compiled_cuda, mode="default", seconds=40, speedup=1.2)
def compile_torch_compile_cuda(job: CompileJob, folder: Path) -> Signature:
    """Compile with Inductor's defaults when the model is loaded."""
    return _compile_when_loaded(job, folder)


@_register("torch_compile_reduce_overhead", load_recorded, mode="reduce-overhead", seconds=45, speedup=2.0)
def compile_torch_compile_reduce_overhead(job: CompileJob, folder: Path) -> Signature:
    """Compile with Inductor and record CUDA graphs when the model is loaded."""
    return _compile_when_loaded(job, folder)


@_register("torch_compile_max_autotune", load_recorded, mode="max-autotune", seconds=120, speedup=2.0)
def compile_torch_compile_max_autotune_cuda(job: CompileJob, folder: Path) -> Signature:
    """Compile with Inductor, time several kernels for each product, and record CUDA graphs when the model is loaded."""
    return _compile_when_loaded(job, folder)
