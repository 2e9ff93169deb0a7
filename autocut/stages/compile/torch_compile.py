"""`torch.compile`: Inductor compiles when the model is loaded, and again on every machine.

The artifact is the graph; compiling is part of the cold start. Weights are frozen, because otherwise Inductor runs int8 through
slow dequantization (FACTS: 0.65x instead of 2.98x). Sizes are static: each serving batch size is compiled (`stages/lowering.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from autocut.stages.calibration import in_steps
from autocut.stages.compile import CompileJob, Compiler, ExampleCall, Run, modes
from autocut.stages.compile.eager import graph_lines, keep_graph
from autocut.stages.compilers import missing_compiler, quietly, translated, use_one_compile_process
from autocut.stages.device import CPU, Device
from autocut.stages.graph import GRAPH_FILE, Signature, load_graph
from autocut.stages.quantize import quantizers


def load_compiled(
    folder: Path,
    signature: Signature,
    threads: int,  # noqa: ARG001 -- torch's own
    *,
    mode: str,
    device: Device = CPU,
    calls: int = 1,
) -> Run:
    """Compile the graph for each batch size of `signature`, on `device`. Each is called so many times before it counts as loaded.

    Raises:
        CompilerError: Inductor refuses the graph.
    """
    use_one_compile_process()
    from torch._inductor import config

    module = device.place_graph(load_graph(folder)).module(check_guards=False)
    # `forward`, not the module: dynamo's limit on recompilations counts by code object, and `Module.__call__` is one for all
    # models.
    compiled = torch.compile(module.forward, dynamic=False, mode=mode)
    # Compiled here and not at the first call: torch.compile(options={"freezing": True}) is ignored (torch 2.13), so the option must
    # be set globally while the compiler works. To set it at every call would take time.
    with translated("torch.compile"), quietly(), torch.no_grad(), config.patch(freezing=signature.freezing):
        for batch_size in in_steps(signature.batch_sizes or ()):
            for _ in range(calls):
                compiled(*map(device.move, signature.placeholder(batch_size)))
        device.wait()

    strides = [placeholder.stride() for placeholder in signature.placeholder(2)]

    def run(*arguments: Tensor) -> Tensor:
        # In any mode of the caller: for a tensor that was made under inference_mode, dynamo would compile again.
        with torch.inference_mode(False), torch.no_grad():
            return compiled(*map(_as_compiled, arguments, strides))  # type: ignore[no-any-return]

    return run


def _as_compiled(tensor: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Copy tensors for which dynamo would compile again: inference tensors, and odd strides of dimensions of size 1."""
    if tensor.is_inference() or tensor.stride() != stride:
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor


def _infeasible(dtype: str) -> str | None:  # noqa: ARG001
    return missing_compiler(python_headers=True)


def _run_lines(call: ExampleCall, *, name: str) -> str:
    return graph_lines(call, f"  # torch.compile it for {name}")


def _compile_when_loaded(job: CompileJob, folder: Path) -> Signature:
    keep_graph(job, folder)
    return job.signature.compiled_for(job.batch_sizes, freezing=quantizers.method(job.dtype).options.freezing)


def _register(name: str, *, mode: str, seconds: float) -> Callable[[Compiler], Compiler]:
    """Register a mode of `torch.compile` as `name`."""
    load, run_lines = partial(load_compiled, mode=mode), partial(_run_lines, name=name)
    return modes.register(
        name, load=load, files=GRAPH_FILE, run_lines=run_lines, seconds=seconds, infeasible=_infeasible, free_dimensions=False
    )


@_register("torch_compile", mode="default", seconds=30)
def compile_torch_compile(job: CompileJob, folder: Path) -> Signature:
    """Compile with Inductor's defaults when the model is loaded."""
    return _compile_when_loaded(job, folder)


@_register("torch_compile_max_autotune", mode="max-autotune-no-cudagraphs", seconds=60)
def compile_torch_compile_max_autotune(job: CompileJob, folder: Path) -> Signature:
    """Compile with Inductor and time several kernels for each matrix product when the model is loaded."""
    return _compile_when_loaded(job, folder)
