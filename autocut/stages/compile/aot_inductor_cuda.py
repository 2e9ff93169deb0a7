"""AOTInductor for GPUs: host code and kernels in a package, compiled once for one compute capability."""

from __future__ import annotations

from pathlib import Path

from autocut.stages.compile import CompileJob, ExampleCall, cuda_modes
from autocut.stages.compile.aot_inductor import compile_packages, load_aot_inductor, package_line
from autocut.stages.compile.torch_compile_cuda import missing_triton
from autocut.stages.device import Device
from autocut.stages.graph import Signature, load_graph

_CUDA = Device("cuda")


def _infeasible(dtype: str) -> str | None:  # noqa: ARG001
    from torch.utils.cpp_extension import CUDA_HOME

    if CUDA_HOME is None:
        return "AOTInductor needs the headers of the CUDA toolkit: install it, and set CUDA_HOME to its folder"
    return missing_triton(python_headers=False)


def _run_lines(call: ExampleCall) -> str:
    return call.on_cuda(package_line(call))


@cuda_modes.register(
    "aot_inductor",
    load=load_aot_inductor,
    files="model*.pt2",
    run_lines=_run_lines,
    seconds=60,
    speedup=1.2,
    infeasible=_infeasible,
    is_machine_code=True,
)
def compile_aot_inductor_cuda(job: CompileJob, folder: Path) -> Signature:
    """Compile to kernels and host code ahead of time.

    The package runs on GPUs of the compute capability that it was compiled on. There is one for each serving batch size: kernels of
    Triton are chosen by the sizes that they get. A graph with free dimensions gets one package for all sizes.
    """
    program = _CUDA.place_graph(load_graph(job.graph))
    return compile_packages(program, job, folder, {}, each_size=True, device=_CUDA)
