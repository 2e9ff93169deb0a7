"""What the whole machine serves with a bundle, and once a study with the untouched model (`Capacity`); or why that is not measured.

Dollars of a finalized model are charged by it, and its bundle is served in the best layout. It takes a second or two a layout,
alone on the machine. A slow model, or a short search, has no time for that: then dollars stay those of one process, for the
untouched model alike.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from autocut.deploy.fresh_process import FreshProcess
from autocut.deploy.layouts import FoundLayouts, ask_layouts, processors_here
from autocut.measure import allocator
from autocut.measure.capacity import shapes_for
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Capacity, Cost
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Facts, Stage
from autocut.stages import lowering
from autocut.task.batches import Inputs

_COMMAND = (sys.executable, "-P", "-m", "autocut.deploy.capacity_process")
_SLOW_CALL_MS = 300.0
"""A call of the untouched model that takes longer would make every layout take several seconds."""
_LAYOUT_S = 1.5
"""What a layout takes as a rule."""
_SHARE = 0.4
"""Of the time that is left: the bundle is still to be verified."""
_SHORTEST_SEARCH_S = 240.0
"""A shorter search needs its seconds for other things: 3 to 5 s a point, and 8 s for the untouched model, on two processors."""


@dataclass(frozen=True)
class CapacityFound:
    """A capacity, or the reason in `note` why there is none; neither where one process is all that fits the machine."""

    capacity: Capacity | None = None
    note: str | None = None


def reason_to_leave_out(pipeline: Pipeline, reference: Cost, search_seconds: float) -> str | None:
    """Say why no model of this study is measured on the whole machine, or return None. The answer is one for all its points.

    Args:
        pipeline: Of the study.
        reference: Cost of the untouched model.
        search_seconds: Seconds of the search.
    """
    context, call_ms = pipeline.runner.context, reference.busiest.p50_ms.value
    if not context.served_on.is_cpu:
        return "one process has the GPU: several on one GPU are not tried"
    if context.scoring is not None:
        return "a model of this task takes long to measure, too long to try layouts"
    if call_ms > _SLOW_CALL_MS:
        return f"a call of the untouched model takes {call_ms / 1e3:.2g} s, too long to try layouts"
    if search_seconds < _SHORTEST_SEARCH_S:
        return f"a search of less than {_SHORTEST_SEARCH_S:.0f} s has no time to try layouts"
    return "the task has no file that other processes could load" if context.task.path is None else None


def measure_capacity(
    pipeline: Pipeline, artifact: Entry, mode: str, fresh: FreshProcess, reference: Cost, search_seconds: float, deadline: float
) -> CapacityFound:
    """Measure what the machine serves with `artifact`, in forks of `fresh`.

    Args:
        pipeline: Measures the untouched model too, once a study.
        artifact: A lowered model.
        mode: Its compile mode.
        fresh: A process that has verified nothing yet.
        reference: Cost of the untouched model.
        search_seconds: Seconds of the search.
        deadline: Reading of `time.monotonic()` after which nothing is begun.

    Raises:
        DeadlineError: the time of the search was up.
    """
    runner, threads = pipeline.runner, pipeline.runner.context.threads
    shapes = shapes_for(processors_here(), None if lowering.takes_any_threads(mode, runner.context.served_on) else threads)
    untouched = untouched_capacity(pipeline, reference, search_seconds)
    if untouched.capacity is None:
        return untouched
    left_s = (deadline - time.monotonic()) * _SHARE
    if left_s < _LAYOUT_S * len(shapes):
        return CapacityFound(note="no time was left to try layouts")
    batch_size = reference.busiest.batch_size
    question: dict[str, Any] = {"model": str(artifact.folder), "mode": mode, "batch_size": batch_size, "layouts": shapes}
    with tempfile.TemporaryDirectory(prefix="autocut-capacity-") as scratch:
        with runner.working():
            question["inputs"] = _write_inputs(Path(scratch), runner.context.samples.serving_inputs(batch_size))
        found = ask_layouts(fresh, question, Path(scratch), left_s, alone=runner.alone, working=runner.working)
    if found.failure is not None:
        return CapacityFound(note=found.failure)
    layouts = untouched.capacity.untouched
    return CapacityFound(Capacity(batch_size, processors_here(), found.layouts, layouts, found.left_out))


def untouched_capacity(pipeline: Pipeline, reference: Cost, search_seconds: float) -> CapacityFound:
    """Measure what the machine serves with the untouched model, run as the user runs it: once a study, through the stage cache."""
    if (reason := reason_to_leave_out(pipeline, reference, search_seconds)) is not None:
        return CapacityFound(note=reason)
    if (processors := processors_here()) == 1:
        return CapacityFound()
    runner, batch_size = pipeline.runner, reference.busiest.batch_size
    settings: dict[str, Any] = {"batch_size": batch_size, "layouts": shapes_for(processors)}
    machine = {"machine": machine_fingerprint(), "processors": processors, "memory": allocator.KEPT}
    key = runner.key(pipeline.baseline.key, "capacity", settings, **machine)
    stage = Stage("capacity", "untouched", "measuring", key, lambda: pipeline, _measure_untouched)
    found = TypeAdapter(FoundLayouts).validate_python(runner.run(stage).facts["found"])
    if found.failure is not None:
        return CapacityFound(note=f"the untouched model: {found.failure}")
    return CapacityFound(Capacity(batch_size, processors, found.layouts, found.layouts, found.left_out))


def _measure_untouched(folder: Path, pipeline: Pipeline) -> Facts:
    runner = pipeline.runner
    context, entry = runner.context, runner.cache.find(pipeline.baseline.key)
    if entry is None:
        return {"found": asdict(FoundLayouts("its weights are gone from the stages"))}
    batch_size = max(context.task.serving_batch_sizes)
    question = {
        "task": str(context.task.path),
        "pickled": str(entry.folder),
        "inputs": _write_inputs(folder, context.samples.serving_inputs(batch_size)),
        "batch_size": batch_size,
        "layouts": shapes_for(processors_here()),
    }
    with FreshProcess(context.threads, _COMMAND, os.environ) as fresh:
        found = ask_layouts(fresh, question, folder, math.inf, alone=runner.alone, working=runner.working)
    return {"found": asdict(found)}


def _write_inputs(folder: Path, inputs: Inputs) -> str:
    torch.save(inputs, folder / "inputs.pt")
    return str(folder / "inputs.pt")
