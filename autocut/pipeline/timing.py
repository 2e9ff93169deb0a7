"""Times models against the untouched one, alone on this machine, and sizes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from autocut.measure.footprint import size_of
from autocut.measure.latency import measure_latency, measure_undisturbed
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Cost, Latency
from autocut.pipeline.samples import Samples
from autocut.pipeline.stage_runner import Workshop
from autocut.stages import lowering
from autocut.stages.lowering import Predict

SAMPLES = 64
"""Timed calls of a model at each batch size."""
_REFERENCE_TRIES = 3


class Timing:
    """Times what `workshop` makes; `untouched` is the model that every speed-up refers to, as the user runs it."""

    def __init__(self, workshop: Workshop, samples: Samples, untouched: Predict, threads: int) -> None:
        self._workshop = workshop
        self._samples = samples
        self._untouched = untouched
        self._threads = threads

    def time_untouched(self, folder: Path) -> Cost:
        """Time the untouched model against itself; its size is that of its exported form in `folder`."""
        with self._workshop.alone():
            latencies = tuple(self._least_disturbed(size) for size in self._workshop.task.serving_batch_sizes)
        return self._cost(latencies, folder, 0.0)

    def time_artifact(self, folder: Path, mode: str, references: Sequence[Latency], samples: int) -> Cost:
        """Time the model in `folder`, in `samples` calls at each batch size; `references` are the untouched model's latencies."""
        first = self._samples.serving_inputs(references[0].batch_size)
        with self._workshop.alone():
            started = time.perf_counter()
            candidate = lowering.load(folder, mode, self._threads)
            candidate(first)
            cold_start_ms = (time.perf_counter() - started) * 1e3
            latencies = tuple(
                measure_undisturbed(
                    partial(self._latency, candidate, reference.batch_size, samples), reference, self._workshop.stop
                )
                for reference in references
            )
        return self._cost(latencies, folder, cold_start_ms)

    def _least_disturbed(self, batch_size: int) -> Latency:
        """Time the untouched model a few times: whatever disturbs makes it slower, so the fastest was disturbed least."""
        tries = [self._latency(self._untouched, batch_size, SAMPLES) for _ in range(_REFERENCE_TRIES)]
        return min(tries, key=lambda found: found.p50_ms.value)

    def _latency(self, candidate: Predict, batch_size: int, samples: int) -> Latency:
        return measure_latency(candidate, self._untouched, self._samples.serving_inputs(batch_size), samples=samples)

    def _cost(self, latencies: tuple[Latency, ...], folder: Path, cold_start_ms: float) -> Cost:
        with self._workshop.working():  # compressing takes seconds
            size, compressed = size_of(folder)
        return Cost(latencies, size, compressed, self._threads, cold_start_ms, machine_fingerprint())
