"""Times models against the untouched model, alone on this machine, and takes their size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from autocut.measure.footprint import size_of
from autocut.measure.latency import measure_latency, measure_undisturbed
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Cost, Latency, cost_from_json
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Facts, Stage, StageRunner
from autocut.stages import lowering
from autocut.stages.lowering import Predict

SAMPLES = 64
"""Timed calls of a model at each batch size."""
_REFERENCE_TRIES = 3


def cost_stage(
    runner: StageRunner, structure: str, dtype: str, mode: str, *, prepare: Callable[[], Entry], measure: Callable[[Entry], Cost]
) -> Stage[Entry]:
    """Return the stage that times `structure` in `dtype` under `mode`, once for all weights: `measure` gets what `prepare` made."""
    context = runner.context
    settings = {
        "structure": structure,
        "dtype": dtype,
        "mode": mode,
        "batches": list(context.task.serving_batch_sizes),
        "threads": context.threads,
    }
    version, machine = lowering.method_versions(dtype, mode), machine_fingerprint()
    key = runner.key("", "cost", settings, method=version, machine=machine)

    def make(folder: Path, artifact: Entry) -> Facts:  # noqa: ARG001 -- the cost is small enough to be a fact of the entry
        return {"cost": asdict(measure(artifact))}

    return Stage("cost", f"{dtype}/{mode}", "measuring", key, prepare, make)


def read_cost(entry: Entry) -> Cost:
    """Read what a cost stage stored."""
    return cost_from_json(entry.facts["cost"])


class Timing:
    """Times models with `runner`; every speed-up refers to `untouched`, the untouched model as the user runs it."""

    def __init__(self, runner: StageRunner, untouched: Predict) -> None:
        self._runner = runner
        self._untouched = untouched

    def time_untouched(self, folder: Path) -> Cost:
        """Time the untouched model against itself; its size is that of its exported form in `folder`."""
        with self._runner.alone():
            latencies = tuple(self._least_disturbed(size) for size in self._runner.context.task.serving_batch_sizes)
        return self._cost(latencies, folder, 0.0)

    def time_artifact(self, folder: Path, mode: str, references: Sequence[Latency], samples: int) -> Cost:
        """Time the model in `folder`, with `samples` calls at each batch size; `references` are the untouched model's latencies."""
        context = self._runner.context
        first = context.samples.serving_inputs(references[0].batch_size)
        with self._runner.alone():
            started = time.perf_counter()
            candidate = lowering.load(folder, mode, context.threads)
            candidate(first)
            cold_start_ms = (time.perf_counter() - started) * 1e3
            latencies = tuple(
                measure_undisturbed(partial(self._latency, candidate, reference.batch_size, samples), reference, context.stop)
                for reference in references
            )
        return self._cost(latencies, folder, cold_start_ms)

    def _least_disturbed(self, batch_size: int) -> Latency:
        """Time the untouched model a few times. Every disturbance makes it slower, so the fastest try was disturbed least."""
        tries = [self._latency(self._untouched, batch_size, SAMPLES) for _ in range(_REFERENCE_TRIES)]
        return min(tries, key=lambda found: found.p50_ms.value)

    def _latency(self, candidate: Predict, batch_size: int, samples: int) -> Latency:
        inputs = self._runner.context.samples.serving_inputs(batch_size)
        return measure_latency(candidate, self._untouched, inputs, samples=samples)

    def _cost(self, latencies: tuple[Latency, ...], folder: Path, cold_start_ms: float) -> Cost:
        with self._runner.working():  # compressing takes seconds
            size, compressed = size_of(folder)
        return Cost(latencies, size, compressed, self._runner.context.threads, cold_start_ms, machine_fingerprint())
