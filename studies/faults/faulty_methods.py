"""Methods that fail, each in its own way. `run.py` installs them as a plug-in, so a search knows them as it knows any other method.

Each dies, hangs or raises where real methods do: inside native code, in a compiler, in a runtime that loads its model.
"""

from __future__ import annotations

import copy
import ctypes
import mmap
import os
import shutil
import signal
import sys
import tempfile
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

from autocut.errors import CompilerError, InfeasibleRecipeError
from autocut.stages.compile import CompileJob, ExampleCall, Run, modes
from autocut.stages.graph import GRAPH_FILE, Signature, load_graph
from autocut.stages.prune import Pruned, PruneData, pruners
from autocut.stages.train import distillations

SCRATCH = "FAULTS_SCRATCH"
"""Names a folder, where a method leaves that it has failed: some fail once, because more would only take the study's minutes."""
_VERIFIES = "autocut.deploy.verify_process"


class Branching(nn.Module):
    """A model whose way depends on its numbers, which no exporter takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what `model` returns, by two ways."""
        if float(inputs.sum()) > 0:
            return self.model(inputs) + 0.0
        return self.model(inputs)


@pruners.register("faulty_segfault")
def prune_by_segfault(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """Read address 0."""
    ctypes.string_at(0)
    return Pruned(model)


@pruners.register("faulty_abort")
def prune_by_abort(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """Abort, as C++ does where nobody catches an exception."""
    os.abort()


@pruners.register("faulty_exit")
def prune_by_exit(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """End the process, as some libraries do where they see no way on."""
    os._exit(7)


@pruners.register("faulty_bus")
def prune_by_bus_error(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """Read a mapped file that was cut short meanwhile. Where shared memory is full, a process dies in the same way."""
    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), mmap.PAGESIZE) as mapped:
            file.truncate(0)
            bytes(mapped[:1])
    return Pruned(model)


@pruners.register("faulty_killed")
def prune_until_killed(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """Be killed, as a process is that takes so much memory that a guard of the machine ends it; each time."""
    signal.raise_signal(signal.SIGKILL)
    return Pruned(model)


@pruners.register("faulty_killed_once")
def prune_after_kill(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Be killed, as by somebody who took the process for another one; once. Then prune as `structured` does."""
    if ratio == 0.5 and not (killed := Path(os.environ[SCRATCH], "killed")).exists():
        killed.touch()
        signal.raise_signal(signal.SIGKILL)
    return pruners["structured"](model, ratio, data)


@pruners.register("faulty_numbers")
def prune_to_nan(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """Return a model that runs, and whose answers are no numbers."""
    broken = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(float("nan"))
    return Pruned(broken)


@pruners.register("faulty_memory")
def prune_by_memory(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """Ask for 16 TiB."""
    torch.empty(2**42)
    return Pruned(model)


@pruners.register("faulty_bug")
def prune_by_bug(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """Raise what nobody expects."""
    raise KeyError("a name that nobody has given")


@pruners.register("faulty_export")
def prune_by_branch(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001
    """Return a model that runs, and that no exporter takes."""
    return Pruned(Branching(copy.deepcopy(model)))


@distillations.register("faulty_nan")
def distill_nan(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ARG001
    """Return no number."""
    return student.sum() * float("nan")


def _unpacked(folder: Path) -> Run:
    graph = folder / GRAPH_FILE
    graph.write_bytes(zlib.decompress((folder / "model.zlib").read_bytes()))
    return load_graph(folder).module(check_guards=False).forward  # type: ignore[no-any-return]


def _pack(job: CompileJob, folder: Path) -> Signature:
    (folder / "model.zlib").write_bytes(zlib.compress((job.graph / GRAPH_FILE).read_bytes()))
    return job.signature


def _no_lines(call: ExampleCall) -> str:
    return call.in_torch("raise SystemExit('this mode is faulty')")


def _dead_load(folder: Path, signature: Signature, threads: int) -> Run:  # noqa: ARG001
    signal.raise_signal(signal.SIGFPE)
    raise RuntimeError("SIGFPE must end the process")


def _two_faced_load(folder: Path, signature: Signature, threads: int) -> Run:  # noqa: ARG001
    """Load what answers rightly, but not while a bundle is verified."""
    run = load_graph(Path((folder / "model.zlib").read_text())).module(check_guards=False).forward
    is_verified = any(_VERIFIES in word for word in sys.orig_argv)
    return (lambda *inputs: torch.zeros_like(run(*inputs))) if is_verified else run


def _whole_load(folder: Path, signature: Signature, threads: int) -> Run:  # noqa: ARG001
    return _unpacked(folder)


@modes.register("faulty_runtime", load=_dead_load, files="model.zlib", run_lines=_no_lines, seconds=1)
def compile_for_dead_runtime(job: CompileJob, folder: Path) -> Signature:
    """Write what a runtime dies of by SIGFPE when it loads it."""
    return _pack(job, folder)


@modes.register("faulty_bundle", load=_two_faced_load, files="model.zlib", run_lines=_no_lines, seconds=1)
def compile_two_faced(job: CompileJob, folder: Path) -> Signature:
    """Write what answers otherwise in a fresh process, and is so small that it looks best: its weights lie elsewhere. Once."""
    elsewhere = Path(os.environ[SCRATCH], "elsewhere")
    if elsewhere.exists() or job.dtype != "fp32":
        raise InfeasibleRecipeError("faulty_bundle takes one model")
    shutil.copytree(job.graph, elsewhere)
    (folder / "model.zlib").write_text(str(elsewhere))
    return job.signature


@modes.register("faulty_compiler", load=_whole_load, files="model.zlib", run_lines=_no_lines, seconds=1)
def compile_without_end(job: CompileJob, folder: Path) -> Signature:  # noqa: ARG001
    """Hang inside native code that holds the interpreter's lock; once. Then refuse."""
    if job.dtype == "fp32" and not (hung := Path(os.environ[SCRATCH], "hung")).exists():
        hung.touch()
        ctypes.PyDLL(None).pause()
    raise CompilerError("faulty_compiler has hung before")
