"""No compiler: torch runs the graph operator by operator."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from autocut.stages.compile import CompileJob, Run, modes
from autocut.stages.compile.exported_graph import graph_lines, keep_graph
from autocut.stages.graph import GRAPH_FILE, Signature, load_graph


def load_eager(folder: Path, signature: Signature, threads: int) -> Run:  # noqa: ARG001 -- torch's threads are the caller's
    """Load the graph as a module of plain operators."""
    # `forward` skips torch's hook that checks the inputs: it takes 0.1 ms a call (torch 2.13), and `Signature` has checked them.
    forward = load_graph(folder).module(check_guards=False).forward

    def run(*arguments: Tensor) -> Tensor:
        with torch.inference_mode():
            return forward(*arguments)  # type: ignore[no-any-return]

    return run


@modes.register("eager", load=load_eager, files=GRAPH_FILE, run_lines=graph_lines, seconds=1)
def compile_eager(job: CompileJob, folder: Path) -> Signature:
    """Keep the graph as it is; torch runs one operator after the other."""
    keep_graph(job, folder)
    return job.signature
