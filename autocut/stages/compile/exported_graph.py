"""Shared by the modes whose artifact is the exported graph itself."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from autocut.stages.compile import CompileJob, ExampleCall
from autocut.stages.graph import GRAPH_FILE

_INT8_OPERATORS = "import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # makes the int8 operators known"


def keep_graph(job: CompileJob, folder: Path) -> None:
    """Copy the graph of `job` to `folder`."""
    shutil.copyfile(job.graph / GRAPH_FILE, folder / GRAPH_FILE)


def graph_lines(call: ExampleCall, comment: str = "") -> str:
    """Return code that loads the graph by torch alone and calls it; `comment` follows the line that loads it."""
    (file,) = call.files
    with zipfile.ZipFile(call.bundle / file) as archive:
        graphs = [archive.read(record) for record in archive.namelist() if record.endswith("models/model.json")]
    operators = [_INT8_OPERATORS] if any(b"quantized_decomposed" in graph for graph in graphs) else []
    return call.in_torch(*operators, f"model = torch.export.load({file!r}).module(){comment}")
