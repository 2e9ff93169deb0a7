"""The stages that measure: scores of a model on a whole split, latency and size of a structure alone on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autocut.measure import allocator
from autocut.measure.accuracy import Scores
from autocut.measure.disturbance import measure_reference, measure_undisturbed
from autocut.measure.footprint import compressed_size_bytes, size_bytes
from autocut.measure.latency import measure_latency
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import COUNTED_CALL, Cost, Latency, cost_from_json
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Facts, Stage, StageRunner
from autocut.recipe import Lowering
from autocut.stages import lowering
from autocut.stages.calibration import in_steps
from autocut.stages.device import CPU, Device
from autocut.stages.lowering import Predict
from autocut.task.batches import Inputs, call, tensors

SAMPLES = 64
"""Timed calls of a model at each batch size. Slow models get fewer (see `measure_latency`)."""
_SCORES = "scores.npz"
_BATCH_SIZE = "batch_size"


def scores_stage(
    runner: StageRunner,
    parent: str,
    settings: Mapping[str, Any],
    method: str,
    load: Callable[[], Predict],
    score: Callable[[Predict], tuple[Scores, int | None]],
) -> Stage[Predict]:
    """Return the stage that scores the model of stage `parent`.

    `load()` returns what runs the model. It ends before the stage begins: compiling is not charged to measuring. `score` also
    returns the batch size of serving that the scores are of; None where the answers do not depend on the batch.
    """

    def make(folder: Path, predict: Predict) -> Facts:
        scores, batch_size = score(predict)
        np.savez(folder / _SCORES, scores=scores.scores, targets=scores.targets)
        return {} if batch_size is None else {_BATCH_SIZE: batch_size}

    return Stage("accuracy", method, "measuring", runner.key(parent, "accuracy", settings), load, make)


def read_scores(entry: Entry) -> Scores:
    """Read what a scores stage wrote."""
    with np.load(entry.folder / _SCORES, allow_pickle=False) as saved:
        return Scores(saved["scores"], saved["targets"])


def scored_batch_size(entry: Entry) -> int | None:
    """Return the batch size of serving that the scores in `entry` are of; None where the answers do not depend on the batch."""
    return entry.facts.get(_BATCH_SIZE)


def run_eagerly(model: nn.Module, device: Device = CPU) -> Predict:
    """Return the function that runs `model` operator by operator, a copy of it where it has to be moved to `device`.

    It answers where its inputs lie, as a loaded artifact does.
    """
    if device.is_cpu:

        def predict(inputs: Inputs) -> Tensor:
            with torch.inference_mode():
                return call(model, inputs)

        return predict
    device.open(serves=True)
    placed = device.placed_copy(model)

    def predict_there(inputs: Inputs) -> Tensor:
        with torch.inference_mode():
            return device.answer(call(placed, device.move_inputs(inputs)), tensors(inputs).values())

    return predict_there


def cost_stage(
    runner: StageRunner,
    structure: str,
    lowering_: Lowering,
    prepare: Callable[[], Entry],
    measure: Callable[[Entry], Cost],
    again: int = 0,
) -> Stage[Entry]:
    """Return the stage that times `structure` under a lowering, once for all weights: `measure` gets what `prepare` made.

    `again` counts the timings of it that were disturbed.
    """
    dtype, mode = lowering_
    batches, threads = list(runner.context.task.serving_batch_sizes), runner.context.threads
    settings: dict[str, Any] = {"structure": structure, "dtype": dtype, "mode": mode, "batches": batches, "threads": threads}
    if again:
        settings["again"] = again
    method = lowering.method_versions(dtype, mode, runner.context.served_on)
    key = runner.key(
        "", "cost", settings, method=method, machine=machine_fingerprint(), memory=allocator.KEPT, counted=COUNTED_CALL
    )

    def make(folder: Path, artifact: Entry) -> Facts:  # noqa: ARG001 -- the cost is small enough to be a fact of the entry
        return {"cost": asdict(measure(artifact))}

    return Stage("cost", f"{dtype}/{mode}", "measuring", key, prepare, make)


def read_cost(entry: Entry) -> Cost:
    """Read what a cost stage stored."""
    return cost_from_json(entry.facts["cost"])


@dataclass(frozen=True)
class Timing:
    """Times models with `runner`; every speed-up refers to `untouched`, the untouched model as the user runs it."""

    runner: StageRunner
    untouched: Predict

    def time_untouched(self, folder: Path) -> Cost:
        """Time the untouched model by itself, so its speed-up is 1; its size is that of its exported form in `folder`."""
        context = self.runner.context
        with self.runner.working():
            sizes = _sizes(folder)
            self._answer_once(self.untouched)
        with self.runner.alone():
            latencies = tuple(
                measure_reference(partial(self._latency, self.untouched, None, size, SAMPLES), context.stop)
                for size in context.task.serving_batch_sizes
            )
        return self._cost(latencies, sizes, 0.0)

    def time_artifact(
        self, folder: Path, mode: str, references: Sequence[Latency], samples: int | None, check: Callable[[Predict], None]
    ) -> Cost:
        """Time the model in `folder` at each batch size; `references` are the untouched model's latencies.

        With `samples`, the p90 is known if there is time for it. The cold start is that of a machine that others use too. A bundle
        gets the one that its fresh process has found. `check` sees the loaded model before it is timed.
        """
        context = self.runner.context
        first = context.samples.serving_inputs(references[0].batch_size)
        with self.runner.working_in_steps():  # some modes compile while loading: others work meanwhile, so the cold start is rough
            started = self.runner.work_clock()
            candidate = lowering.load(folder, mode, context.threads, context.served_on)
            candidate(first)
            cold_start_ms = (self.runner.work_clock() - started) * 1e3
            check(candidate)
            sizes = _sizes(folder)
            self._answer_once(candidate, self.untouched)
        with self.runner.alone():
            latencies = tuple(
                measure_undisturbed(
                    partial(self._latency, candidate, self.untouched, reference.batch_size, samples), reference, context.stop
                )
                for reference in references
            )
        return self._cost(latencies, sizes, cold_start_ms)

    def _answer_once(self, *models: Predict) -> None:
        """Let `models` answer what they will be timed with: their first calls take long and count for nothing."""
        context = self.runner.context
        allocator.keep_memory()
        for size in in_steps(context.task.serving_batch_sizes):
            inputs = context.served_on.move_inputs(context.samples.serving_inputs(size))
            for model in models:
                model(inputs)

    def _latency(self, model: Predict, baseline: Predict | None, batch_size: int, samples: int | None) -> Latency:
        context = self.runner.context
        inputs = context.served_on.move_inputs(context.samples.serving_inputs(batch_size))
        return measure_latency(
            model, baseline, inputs, samples=samples or SAMPLES, with_p90=samples is not None, have_answered=True
        )

    def _cost(self, latencies: tuple[Latency, ...], sizes: tuple[int, int], cold_start_ms: float) -> Cost:
        return Cost(latencies, *sizes, self.runner.context.threads, cold_start_ms, machine_fingerprint())


def _sizes(folder: Path) -> tuple[int, int]:
    """Bytes as stored and compressed. Compressing takes seconds: done after the timing, it would wait for the next one's end."""
    return size_bytes(folder), compressed_size_bytes(folder)
