"""No compiler: torch runs the graph operator by operator. The artifact is the exported graph itself, as for `torch_compile`."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from autocut.stages.compile import CompileJob, ExampleCall, Run, modes
from autocut.stages.device import CPU, Device
from autocut.stages.graph import GRAPH_FILE, Signature, load_graph

_INT8_OPERATORS = "import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # makes the int8 operators known"


def keep_graph(job: CompileJob, folder: Path) -> None:
    """Copy the graph of `job` to `folder`."""
    shutil.copyfile(job.graph / GRAPH_FILE, folder / GRAPH_FILE)


def graph_lines(call: ExampleCall, comment: str = "") -> str:
    """Return code that loads the graph by torch alone and calls it; `comment` follows the line that loads it."""
    (file,) = call.files
    return call.in_torch(*operator_lines(call), f"model = torch.export.load({file!r}).module(){comment}")


def operator_lines(call: ExampleCall) -> list[str]:
    """Return the import that makes the operators of the graph known, if it needs one."""
    (file,) = call.files
    with zipfile.ZipFile(call.bundle / file) as archive:
        graphs = [archive.read(record) for record in archive.namelist() if record.endswith("models/model.json")]
    return [_INT8_OPERATORS] if any(b"quantized_decomposed" in graph for graph in graphs) else []


def load_eager(folder: Path, signature: Signature, threads: int, device: Device = CPU) -> Run:  # noqa: ARG001 -- torch's threads
    """Load the graph as a module of plain operators, on `device`."""
    # `forward` skips torch's hook that checks the inputs: it takes 0.1 ms a call (torch 2.13), and `Signature` has checked them.
    forward = device.place_graph(load_graph(folder)).module(check_guards=False).forward

    def run(*arguments: Tensor) -> Tensor:
        with torch.inference_mode():
            return forward(*arguments)  # type: ignore[no-any-return]

    return run


@modes.register(
    "eager", load=load_eager, files=GRAPH_FILE, run_lines=graph_lines, seconds=1, seconds_per_100mb=0.1, takes_any_threads=True
)
def compile_eager(job: CompileJob, folder: Path) -> Signature:
    """Keep the graph as it is; torch runs one operator after the other."""
    keep_graph(job, folder)
    return job.signature
