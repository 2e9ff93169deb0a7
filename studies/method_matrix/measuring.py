"""Measures one change of a family, as a search would: through autocut's pipeline, its stages and its timing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from changes import Change
from families import BATCH_SIZES, Family, read_task
from rows import Row

from autocut.errors import AutocutError, DeadlineError, InfeasibleRecipeError, InputError, MissingDependencyError, TrialError
from autocut.measure.accuracy import to_accuracy
from autocut.measure.quiet import QuietLock
from autocut.measurement import Cost, Interval, Measured
from autocut.pipeline.lowering_stages import compile_stage, convert_stage, graph_stage
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import Stage, StageContext
from autocut.recipe import UNTOUCHED, Recipe
from autocut.stages import lowering
from autocut.stages.methods import unfit_methods
from autocut.stages.train import kind_as_used

THREADS = 1


class FamilyBench:
    """The pipeline of one family; its stages are kept under `folder`. When `stop()` turns true, a training ends without a row.

    Raises:
        AutocutError: the task, a package of it or its data is missing.
    """

    def __init__(self, family: Family, folder: Path, stop: Callable[[], bool]) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.parent / "inductor"))
        torch.set_num_threads(THREADS)
        self.family = family
        self.task = read_task(family)
        context = StageContext(self.task, StageCache(folder, sys.maxsize), QuietLock(), threads=THREADS, stop=stop)
        self.pipeline = Pipeline(context)
        self._unfit = unfit_methods(self.task.kind, is_pretrained=self.task.is_pretrained, kind=kind_as_used(self.task))

    def measure(self, change: Change) -> Row:
        """Measure `change`, or say why it cannot be.

        Raises:
            DeadlineError: the time is up.
            InputError: nothing else would work either, such as with a full disk.
        """
        return self._try(change, self._measured)

    def prepare(self, change: Change) -> Row | None:
        """Make and score the model of `change`, and time nothing. Return a row only where it cannot be made; raise as `measure`."""
        row = self._try(change, self._prepared)
        return row if row.reason else None

    def _try(self, change: Change, make: Callable[[Change], Row]) -> Row:
        if reason := self._unfit_reason(change.recipe):
            return self._row(change, "infeasible", reason=reason)
        try:
            return make(change)
        except DeadlineError:
            raise
        except (InfeasibleRecipeError, MissingDependencyError) as error:
            return self._row(change, "infeasible", reason=error.message)
        except TrialError as error:
            return self._row(change, "failed", reason=f"{type(error).__name__}: {error.message}")
        except InputError:
            raise
        except Exception as error:
            # A fault of autocut or of a library: the matrix is there to show it.
            return self._row(change, "bug", reason=f"{type(error).__name__}: {error}")

    def _unfit_reason(self, recipe: Recipe) -> str | None:
        found = (self._unfit.get(axis, {}).get(str(value)) for axis, value in recipe.items())
        return next((reason for reason in found if reason), None)

    def _prepared(self, change: Change) -> Row:
        model = self.pipeline.prefix(change.recipe)
        self.pipeline.accuracy(model, *change.recipe.lowering)
        self.pipeline.artifact(model, *change.recipe.lowering)
        return self._row(change, "prepared")

    def _measured(self, change: Change) -> Row:
        untouched = self.pipeline.measure(UNTOUCHED).measurement.cost
        measured = self.pipeline.measure(change.recipe)
        return self._row(
            change,
            "measured",
            metric=self.task.metric_kind.name,
            **self._accuracies(change, measured),
            **_costs(measured.measurement.cost, untouched),
            samples_seen=measured.samples_seen,
            train_seconds=0.0 if change.recipe.prefix == UNTOUCHED else measured.train_seconds,
            lower_seconds=self._lowering_seconds(change.recipe),
        )

    def _accuracies(self, change: Change, measured: Measured) -> dict[str, float]:
        accuracy = measured.measurement.accuracy
        found = {"accuracy": accuracy.metric.value}
        if accuracy.difference is not None:
            found |= _interval("change", accuracy.difference)
        if change.training is not None:
            scores, without = self.pipeline.scores(change.recipe), self.pipeline.scores(change.training)
            gain = to_accuracy("validation", scores, self.task.metric_kind, without).difference
            found |= {} if gain is None else _interval("gain", gain)
        return found

    def _lowering_seconds(self, recipe: Recipe) -> float:
        """Sum up what export, quantization and compilation took, each by itself: other lowerings may share the first of them."""
        if recipe.lowering == UNTOUCHED.lowering:
            return 0.0
        runner, model, (dtype, mode) = self.pipeline.runner, self.pipeline.prefix(recipe), recipe.lowering
        steps = [graph_stage, convert_stage, compile_stage] if lowering.converts(mode) else [graph_stage, compile_stage]
        stages: list[Stage[Any]] = [step(runner, model, dtype, mode) for step in steps]
        return sum(runner.run(stage).seconds for stage in stages)

    def _row(self, change: Change, outcome: str, /, **found: Any) -> Row:
        return Row(
            self.family.name, self.family.bound, change.axis, change.method, change.recipe.canonical_json(), outcome, **found
        )


def why_skipped(error: AutocutError) -> str:
    """Say in one line why a family is skipped."""
    return error.message + (f" ({error.hint})" if error.hint else "")


def _costs(cost: Cost, untouched: Cost) -> dict[str, float]:
    speedups = [_interval(f"speedup_{size}", cost.latency(size).speedup) for size in BATCH_SIZES]
    latencies = {f"latency_{size}_ms": cost.latency(size).p50_ms.value for size in BATCH_SIZES}
    return {
        **{name: value for speedup in speedups for name, value in speedup.items()},
        **latencies,
        "size_bytes": cost.size_bytes,
        "size_ratio": cost.size_bytes / untouched.size_bytes,
        "compressed_ratio": cost.compressed_size_bytes / untouched.compressed_size_bytes,
        "cold_start_seconds": cost.cold_start_ms / 1e3,
        "disturbance": cost.disturbance,
    }


def _interval(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
