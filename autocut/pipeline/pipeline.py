"""Runs a recipe: prune, train, quantize, compile, measure; every step through the stage cache.

Two facts make a search cheap, and both live here. A trained prefix has many lowerings: its stages are keys of a tree, so a second
lowering finds the weights made. And cost does not depend on weights: latency is stored under the *structure* (shapes and zeros of
the weights), so a recipe whose structure was timed before is never timed again, and modes that run the same quantized graph
share one accuracy.

One `Pipeline` belongs to one worker process. Work runs under the shared side of the quiet lock, timing under its exclusive side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.measure.accuracy import Scores, score_model, to_accuracy
from autocut.measure.machine import machine_fingerprint
from autocut.measure.quiet import QuietLock
from autocut.measurement import Accuracy, Cost, Measured, Measurement, Rung, cost_from_json
from autocut.pipeline.artifacts import Artifacts
from autocut.pipeline.samples import Samples
from autocut.pipeline.stage_cache import Entry, StageCache
from autocut.pipeline.stage_runner import Make, Observe, OnBroken, Workshop
from autocut.pipeline.teacher_outputs import Lesson, Teaching
from autocut.pipeline.timing import SAMPLES, Timing
from autocut.recipe import Recipe, Value
from autocut.stages import lowering
from autocut.stages.lowering import Predict
from autocut.stages.model_files import Prefix, restore_model, save_model, structure_of
from autocut.stages.prune import PruneData, pruners
from autocut.stages.train import Epoch, Trained, curricula, distillations, orders, train_model
from autocut.stages.train.plan import DEFAULTS, TRAINER_VERSION
from autocut.task.batches import Inputs, call, take
from autocut.task.task import Task

_PRUNE_BATCHES = 8


class Pipeline:
    """Runs recipes of `task` in this process.

    `observe(entry, category)` is called for every stage that was made or found, `on_broken(seconds, category)` for one that ended
    without an output, `on_loaded(method, seconds)` when a lowered model was loaded to be scored; `on_rung` after every epoch of a
    training, which it may end by an error of its own.
    `stop()` turning true ends work at the next batch boundary with `DeadlineError`.
    """

    def __init__(
        self,
        task: Task,
        cache: StageCache,
        quiet: QuietLock,
        *,
        seed: int = 0,
        threads: int = 1,
        observe: Observe = lambda *_: None,
        on_broken: OnBroken = lambda *_: None,
        on_loaded: Callable[[str, float], None] = lambda *_: None,
        on_rung: Callable[[Rung], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.task = task
        self.seed = seed
        self.threads = threads
        self._on_loaded = on_loaded
        self._on_rung = on_rung
        self._workshop = Workshop(task, cache, quiet, seed=seed, observe=observe, on_broken=on_broken, stop=stop)
        self._samples = Samples(task, seed)
        self._artifacts = Artifacts(self._workshop, self._samples)
        self.teaching = Teaching(self._workshop, self._samples, lambda: self.baseline)

    # ---- stages ----------------------------------------

    @cached_property
    def baseline(self) -> Prefix:
        """The untouched model: the task's own weights, or trained from scratch where the task brings none."""
        trains = not self.task.is_pretrained
        settings = {"train.epochs": self.task.epochs} if trains else {}

        def make(folder: Path) -> dict[str, Any]:
            model = self.task.build_model()
            if not trains:
                save_model(folder, model, {})
                return {"samples_seen": 0, "train_seconds": 0.0}
            trained = self._trained(key, model, settings, {}, Lesson())
            save_model(folder, trained.model, {})
            return _trained_facts(trained)

        key = self.key("", "baseline", settings, method=TRAINER_VERSION if trains else 0)
        entry = self.stage(key, "baseline", "train" if trains else "build", make, "training")
        self.cache.checkpoint(key).unlink(missing_ok=True)
        return self._restored(entry, (key,), entry.facts["train_seconds"], entry.facts["samples_seen"])

    @cached_property
    def scratch(self) -> Prefix:
        """The task's model before any training, for recipes that train it in another way than the untouched model was.

        Raises:
            InfeasibleRecipeError: the task brings trained weights.
        """
        if self.task.is_pretrained:
            raise InfeasibleRecipeError("train.start must be 'trained' where the task brings trained weights, got 'scratch'")
        key = self.key("", "scratch", {})

        def make(folder: Path) -> None:
            save_model(folder, self.task.build_model(), {})

        return self._restored(self.stage(key, "scratch", "build", make, "training"), (key,), 0.0, 0)

    def prefix(self, recipe: Recipe) -> Prefix:
        """Return the pruned and trained model of `recipe`, from the cache as far as it is there.

        Raises:
            TrialError: the recipe is infeasible, diverged, or its time is up.
        """
        origin = self.scratch if recipe.get("train.start") == "scratch" else self.baseline
        prefix = origin if recipe.parent is None else self.prefix(recipe.parent)
        if recipe["prune.method"] != "none":
            prefix = self._prune(prefix, recipe, origin.model)
        if recipe.is_trained:
            prefix = self._train(prefix, recipe)
        return prefix

    def artifact(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        """Return the saved, runnable form of `prefix` in `dtype` under `mode`; modes that start from one graph share it."""
        return self._artifacts.artifact(prefix, dtype, mode)

    def graph(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        """Return the exported graph of `prefix` from which `mode` runs `dtype`."""
        return self._artifacts.graph(prefix, dtype, mode)

    # ---- measuring ----------------------------------------

    def measure(self, recipe: Recipe) -> Measured:
        """Run `recipe` and measure it on the validation split."""
        prefix = self.prefix(recipe)
        dtype, mode = recipe.lowering
        accuracy = self.accuracy(prefix, dtype, mode)
        cost = self.cost(prefix, dtype, mode)
        return Measured(Measurement(accuracy, cost), prefix.train_seconds, prefix.samples_seen, prefix.lineage, prefix.structure)

    def accuracy(self, prefix: Prefix, dtype: str, mode: str) -> Accuracy:
        """Return the validation accuracy, shared by all modes that run the same quantized graph."""
        scores = self._scores(prefix, dtype, mode)
        baseline = self._scores(self.baseline, "fp32", "eager")
        with self.working():
            return to_accuracy("validation", scores, self.task.metric_kind, baseline)

    def cost(self, prefix: Prefix, dtype: str, mode: str) -> Cost:
        """Return latency and size of the structure of `prefix` in `dtype` under `mode`, timed once for all weights."""
        settings = {"structure": prefix.structure, "dtype": dtype, "mode": mode, "batches": list(self.task.serving_batch_sizes)}
        key = self.key(
            "",
            "cost",
            {**settings, "threads": self.threads},
            method=lowering.method_versions(dtype, mode),
            machine=machine_fingerprint(),
        )

        # Stages of their own, made before this one begins: nobody waits for itself, and no second is counted twice.
        is_reference = prefix.structure == self.baseline.structure and (dtype, mode) == ("fp32", "eager")
        artifact = None
        if self.cache.find(key) is None:
            artifact = self.artifact(self.baseline if is_reference else prefix, dtype, mode)
            if not is_reference:
                self.cost(self.baseline, "fp32", "eager")

        def make(folder: Path) -> dict[str, Any]:  # noqa: ARG001 -- the cost is small enough to live in the entry's facts
            if is_reference:
                return {"cost": asdict(self.reference())}
            source = artifact or self.artifact(prefix, dtype, mode)
            return {"cost": asdict(self.time_artifact(source.folder, mode))}

        entry = self.stage(key, "cost", f"{dtype}/{mode}", make, "measuring")
        return cost_from_json(entry.facts["cost"])

    def reference(self) -> Cost:
        """Cost of the untouched model as the user runs it: an eager module timed against itself, sized in its exported form."""
        return self._timing.time_untouched(self.artifact(self.baseline, "fp32", "eager").folder)

    def time_artifact(self, folder: Path, mode: str, samples: int = SAMPLES) -> Cost:
        """Time the model in `folder` against the untouched model, alone on this machine."""
        references = self.cost(self.baseline, "fp32", "eager").latencies
        return self._timing.time_artifact(folder, mode, references, samples)

    @cached_property
    def baseline_predict(self) -> Predict:
        """The untouched model in eager mode."""
        return _eager(self.baseline.model)

    # ---- for other rooms that make stages ----------------------------------------

    @property
    def cache(self) -> StageCache:
        """The stage cache; reading it counts as work."""
        return self._workshop.cache

    @property
    def waited_s(self) -> float:
        """Seconds spent waiting: for the machine, and for others who were making the same stage."""
        return self._workshop.waited_s

    @property
    def calibration(self) -> list[Inputs]:
        """Training inputs for observers and exporters."""
        return self._samples.calibration

    def serving_inputs(self, batch_size: int) -> Inputs:
        """Return `batch_size` real inputs from the training split."""
        return self._samples.serving_inputs(batch_size)

    def key(self, parent: str, stage: str, settings: Mapping[str, Any], **context: Any) -> str:
        """Key of a stage of this task, seed and these library versions."""
        return self._workshop.key(parent, stage, settings, **context)

    def stage(self, key: str, stage: str, method: str, make: Make, category: str) -> Entry:
        """Return the entry of `key`, made by `make` where there is none, and tell the observer."""
        return self._workshop.stage(key, stage, method, make, category)

    def working(self) -> AbstractContextManager[None]:
        """Hold the machine together with others who work; nobody times meanwhile."""
        return self._workshop.working()

    def alone(self) -> AbstractContextManager[None]:
        """Hold the machine alone, to time something."""
        return self._workshop.alone()

    # ---- private ----------------------------------------

    def _prune(self, parent: Prefix, recipe: Recipe, original: nn.Module) -> Prefix:
        settings = {name: recipe[name] for name in ("prune.method", "prune.ratio")}
        method = pruners.method(str(settings["prune.method"]))
        key = self.key(parent.key, "prune", settings, method=method.version)

        def make(folder: Path) -> None:
            with self.working():
                batches = self._samples.batches(_PRUNE_BATCHES, self.task.batch_size)
                data = PruneData(take(batches[0][0], 2), batches, self.task.metric_kind.loss, original)
                pruned = pruners[method.name](parent.model, float(settings["prune.ratio"]), data)
                save_model(folder, pruned.model, pruned.masks)

        entry = self.stage(key, "prune", method.name, make, "training")
        return self._restored(entry, (*parent.lineage, key), parent.train_seconds + entry.seconds, parent.samples_seen)

    def _train(self, parent: Prefix, recipe: Recipe) -> Prefix:
        settings = recipe.settings("train", "curriculum", "distill")
        schedule, loss = str(settings["curriculum.schedule"]), str(settings["distill.loss"])
        order = str(settings.get("curriculum.order", DEFAULTS["curriculum.order"]))
        versions = [
            TRAINER_VERSION,
            curricula.method(schedule).version,
            orders.method(order).version,
            distillations.method(loss).version,
        ]
        key = self.key(parent.key, "train", settings, method=versions, teacher=self.teaching.teacher_of(settings))
        # Stages of their own, made before this one begins, so that no second is counted twice.
        lesson = None if self.cache.find(key) else self.teaching.lesson(settings, parent.model)

        def make(folder: Path) -> dict[str, Any]:
            taught = lesson or self.teaching.lesson(settings, parent.model)
            trained = self._trained(key, parent.model, settings, parent.masks, taught)
            save_model(folder, trained.model, parent.masks)
            return {**_trained_facts(trained), "train_seconds": trained.seconds + taught.seconds}

        entry = self.stage(key, "train", f"{schedule}/{loss}", make, "training")
        self.cache.checkpoint(key).unlink(missing_ok=True)  # only now is the training's result safe
        seconds = parent.train_seconds + entry.facts["train_seconds"]
        return self._restored(entry, (*parent.lineage, key), seconds, parent.samples_seen + entry.facts["samples_seen"])

    def _trained(
        self, key: str, model: nn.Module, settings: Mapping[str, Value], masks: Mapping[str, Tensor], lesson: Lesson
    ) -> Trained:
        return train_model(
            model, self.task, settings, masks=masks, teacher=lesson.teacher, difficulty=lesson.difficulty, seed=self.seed,
            checkpoint=self.cache.checkpoint(key), on_epoch=self._evaluate_rung, gate=self.working, stop=self._workshop.stop,
        )  # fmt: skip

    def _evaluate_rung(self, epoch: Epoch) -> None:
        kind = self.task.metric_kind
        with self.working():
            scores = score_model(_eager(epoch.model), self.task.loader(self.task.validation_data, self.task.batch_size), kind)
        self._on_rung(Rung(epoch.number, epoch.epochs, float(kind.summarize(scores.scores, scores.targets))))

    def _restored(self, entry: Entry, lineage: tuple[str, ...], train_seconds: float, samples_seen: int) -> Prefix:
        with self.working():
            model, masks = restore_model(entry.folder)
            return Prefix(model, masks, lineage, train_seconds, samples_seen, structure_of(model))

    def _scores(self, prefix: Prefix, dtype: str, mode: str) -> Scores:
        numerics = lowering.numerics(dtype, mode)
        key = self.key(prefix.key, "accuracy", {"numerics": numerics, "split": "validation"})

        # Made before the stage begins, so that compiling is not charged to measuring.
        predict = None if self.cache.find(key) else self._predict(prefix, dtype, mode)

        def make(folder: Path) -> None:
            run = predict or self._predict(prefix, dtype, mode)  # the entry has been evicted since it was found
            with self.working():
                scores = score_model(run, self.task.loader(self.task.validation_data, self.task.batch_size), self.task.metric_kind)
            np.savez(folder / "scores.npz", scores=scores.scores, targets=scores.targets)

        entry = self.stage(key, "accuracy", numerics, make, "measuring")
        with np.load(entry.folder / "scores.npz", allow_pickle=False) as saved:
            return Scores(saved["scores"], saved["targets"])

    def _predict(self, prefix: Prefix, dtype: str, mode: str) -> Predict:
        if dtype == "fp32" and lowering.numerics(dtype, mode) == lowering.numerics("fp32", "eager"):
            return _eager(prefix.model)
        artifact = self.artifact(prefix, dtype, mode)
        with self.working():  # some modes compile while loading
            started = time.perf_counter()
            predict = lowering.load(artifact.folder, mode, self.threads)
            self._on_loaded(f"{dtype}/{mode}", time.perf_counter() - started)
        return predict

    @cached_property
    def _timing(self) -> Timing:
        return Timing(self._workshop, self._samples, self.baseline_predict, self.threads)


def _trained_facts(trained: Trained) -> dict[str, Any]:
    facts = {"samples_seen": trained.samples_seen, "train_seconds": trained.seconds}
    return facts | {"fresh_samples": trained.samples_seen - trained.resumed_samples}


def _eager(model: nn.Module) -> Predict:
    def predict(inputs: Inputs) -> Tensor:
        with torch.inference_mode():
            return call(model, inputs)

    return predict
