"""The stages from a trained model to what runs it. Lowerings share the first two: a graph, and what a mode makes of a graph.

graph_stage      once for all modes that start from the same graph
convert_stage    for a mode that converts: once for all its dtypes of this graph
compile_stage    the saved, runnable form
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Stage, StageRunner
from autocut.recipe import UNTOUCHED
from autocut.stages import lowering
from autocut.stages.model_files import Prefix


def graph_stage(runner: StageRunner, model: Prefix, dtype: str, mode: str) -> Stage[None]:
    """Return the stage that exports the graph of `model` from which `mode` runs `dtype`."""
    graph_dtype = lowering.graph_dtype(dtype, mode, runner.context.served_on)
    # The graph belongs to no mode, and to no device. Its key names the untouched model's mode, as in every older study.
    version = lowering.method_versions(graph_dtype, UNTOUCHED.lowering[1])
    key = runner.key(model.key, "quantize", {"dtype": graph_dtype}, method=version)

    def make(folder: Path, _: None) -> None:
        with runner.working_in_steps():
            calibration, dynamic = runner.context.samples.calibration, runner.context.task.dynamic
            lowering.lower_graph(model.model, graph_dtype, calibration, folder, dynamic=dynamic)

    return Stage("quantize", graph_dtype, "compiling", key, lambda: None, make)


def convert_stage(runner: StageRunner, model: Prefix, dtype: str, mode: str) -> Stage[Entry]:
    """Return the stage that makes of a graph what `mode`, one that converts, starts from."""
    graph = graph_stage(runner, model, dtype, mode)
    key = runner.key(graph.key, "convert", {"mode": mode}, method=lowering.conversion_version(mode, runner.context.served_on))

    def make(folder: Path, exported: Entry) -> None:
        with runner.working():
            lowering.convert_graph(exported.folder, mode, folder, runner.context.served_on)

    return Stage("convert", f"{graph.method}/{mode}", "compiling", key, lambda: runner.run(graph), make)


def compile_stage(runner: StageRunner, model: Prefix, dtype: str, mode: str) -> Stage[Entry]:
    """Return the stage that makes the saved, runnable form of `model` in `dtype` under `mode`.

    Raises:
        InfeasibleRecipeError: this machine cannot run the pair.
    """
    device = runner.context.served_on
    lowering.require_feasible(dtype, mode, device)
    batch_sizes = list(runner.context.task.serving_batch_sizes)
    settings = {"dtype": dtype, "mode": mode, "batch_sizes": batch_sizes}
    key = runner.key(model.key, "compile", settings, method=lowering.method_versions(dtype, mode, device))
    begin = convert_stage if lowering.converts(mode, device) else graph_stage
    start: Stage[Any] = begin(runner, model, dtype, mode)

    def make(folder: Path, source: Entry) -> None:
        with runner.working_in_steps():
            calibration = runner.context.samples.calibration
            lowering.compile_graph(source.folder, dtype, mode, calibration, folder, batch_sizes=batch_sizes, device=device)

    return Stage("compile", f"{dtype}/{mode}", "compiling", key, lambda: runner.run(start), make)
