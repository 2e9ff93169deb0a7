"""No compiler, on a GPU: torch launches one kernel after the other. The artifact is the graph, moved there when it is loaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from autocut.stages.compile import CompileJob, ExampleCall, cuda_modes
from autocut.stages.compile.eager import keep_graph, load_eager, operator_lines
from autocut.stages.device import Device
from autocut.stages.graph import GRAPH_FILE, Signature


def cuda_graph_lines(call: ExampleCall, comment: str = "") -> str:
    """Return code that loads the graph by torch alone, moves it to the GPU and calls it; `comment` follows the last such line."""
    (file,) = call.files
    return call.on_cuda(
        "from torch.export.passes import move_to_device_pass",
        *operator_lines(call),
        f'model = move_to_device_pass(torch.export.load({file!r}), "cuda").module(){comment}',
    )


@cuda_modes.register(
    "eager",
    load=partial(load_eager, device=Device("cuda")),
    files=GRAPH_FILE,
    run_lines=cuda_graph_lines,
    seconds=2,
    seconds_per_100mb=0.1,
)
def compile_eager_cuda(job: CompileJob, folder: Path) -> Signature:
    """Keep the graph as it is; torch launches one kernel after the other."""
    keep_graph(job, folder)
    return job.signature
