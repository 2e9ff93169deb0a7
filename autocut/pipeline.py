"""Runs a recipe: prune, train, quantize, compile, measure; every step through the stage cache.

Two facts make a search cheap, and both live here. A trained prefix has many tails: its stages are keys of a tree, so a second
tail finds the weights made. And cost does not depend on weights: latency is stored under the *structure* (shapes and zeros of
the weights), so a recipe whose structure was timed before is never timed again, and modes that run the same quantized graph
share one accuracy.

One `Pipeline` belongs to one worker process. Work runs under the shared side of the quiet lock, timing under its exclusive side.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autocut.batches import Batch, Inputs, call, pad, take
from autocut.errors import InfeasibleRecipeError, StoppedEarlyError, TrialError
from autocut.measure.accuracy import Scores, score_model, to_accuracy
from autocut.measure.footprint import size_of
from autocut.measure.latency import measure_latency, measure_undisturbed
from autocut.measure.machine import machine_fingerprint
from autocut.measure.quiet import QuietLock
from autocut.measurement import Accuracy, Cost, Latency, Measured, Measurement, Rung, cost_from_json
from autocut.recipe import Recipe
from autocut.splits import length
from autocut.stage_cache import Entry, StageCache, stage_key
from autocut.stages import lowering
from autocut.stages.libraries import library_versions
from autocut.stages.model_files import Prefix, restore_model, save_model, structure_of
from autocut.stages.prune import PruneData, pruners
from autocut.stages.train import (
    Epoch,
    Teacher,
    Trained,
    check_distillation,
    curricula,
    distillations,
    orders,
    score_difficulty,
    teacher_logits,
    train_model,
)
from autocut.stages.train.plan import DEFAULTS, TRAINER_VERSION
from autocut.task import Task, seeded

_CALIBRATION_BATCHES = 8
_PRUNE_BATCHES = 8
_SAMPLES = 64
_REFERENCE_TRIES = 3


class Pipeline:
    """Runs recipes of `task` in this process.

    `observe(entry, category)` is called for every stage that was made or found, `on_broken(seconds, category)` for one that ended
    without an output; `on_rung` after every epoch of a training, which it may end by an error of its own;
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
        observe: Callable[[Entry, str], None] = lambda *_: None,
        on_broken: Callable[[float, str], None] = lambda *_: None,
        on_rung: Callable[[Rung], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.task = task
        self.cache = cache.gated(self.working)
        self.quiet = quiet
        self.seed = seed
        self.threads = threads
        self.on_rung = on_rung
        self.stop = stop
        self.waited_s = 0.0
        self._observe = observe
        self._on_broken = on_broken
        self._served: dict[int, Inputs] = {}

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
            trained = train_model(
                model, self.task, settings, masks={}, teacher=None, difficulty=None, seed=self.seed,
                checkpoint=self._checkpoint(key), on_epoch=self._evaluate_rung, gate=self.working, stop=self.stop,
            )  # fmt: skip
            save_model(folder, trained.model, {})
            return _trained_facts(trained)

        key = self.key("", "baseline", settings, method=TRAINER_VERSION if trains else 0)
        entry = self.stage(key, "baseline", "train" if trains else "build", make, "training")
        self._checkpoint(key).unlink(missing_ok=True)
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
        prefix = self.scratch if recipe.get("train.start") == "scratch" else self.baseline
        if recipe["prune.method"] != "none":
            prefix = self._prune(prefix, recipe)
        if recipe.is_trained:
            prefix = self._train(prefix, recipe)
        return prefix

    def artifact(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        """Return the saved, runnable form of `prefix` in `dtype` under `mode`; modes that start from one graph share it."""
        batch_sizes = list(self.task.serving_batch_sizes)
        settings = {"dtype": dtype, "mode": mode, "batch_sizes": batch_sizes}
        key = self.key(prefix.key, "compile", settings, method=lowering.method_versions(dtype, mode))
        graph = None if self.cache.find(key) or lowering.infeasible_reason(dtype, mode) else self._graph(prefix, dtype, mode)

        def make(folder: Path) -> None:
            with self.working():
                lowering.lower(
                    prefix.model,
                    dtype,
                    mode,
                    self.calibration,
                    folder,
                    batch_sizes=batch_sizes,
                    graph=graph.folder if graph else None,
                )

        return self.stage(key, "compile", f"{dtype}/{mode}", make, "compiling")

    # ---- measuring ----------------------------------------

    def measure(self, recipe: Recipe) -> Measured:
        """Run `recipe` and measure it on the validation split."""
        prefix = self.prefix(recipe)
        dtype, mode = recipe.tail
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

    def time_artifact(self, folder: Path, mode: str, samples: int = _SAMPLES) -> Cost:
        """Time the model in `folder` against the untouched model, alone on this machine."""
        references = self.cost(self.baseline, "fp32", "eager").latencies
        first = self.serving_inputs(references[0].batch_size)
        with self.alone():
            started = time.perf_counter()
            candidate = lowering.load(folder, mode, self.threads)
            candidate(first)
            cold_start_ms = (time.perf_counter() - started) * 1e3
            latencies = tuple(
                measure_undisturbed(partial(self._latency, candidate, reference.batch_size, samples), reference, self.stop)
                for reference in references
            )
        return self._cost(latencies, folder, cold_start_ms)

    def serving_inputs(self, batch_size: int) -> Inputs:
        """Return `batch_size` real inputs from the training split."""
        if batch_size not in self._served:
            ((inputs, _),) = self._sampled(1, batch_size)
            self._served[batch_size] = take(pad(inputs, batch_size), batch_size)
        return self._served[batch_size]

    @cached_property
    def calibration(self) -> list[Inputs]:
        """Training inputs for observers and exporters; the first is the export example."""
        return [inputs for inputs, _ in self._sampled(_CALIBRATION_BATCHES, self.task.batch_size)]

    def _sampled(self, batches: int, batch_size: int) -> list[Batch]:
        """The same batches in every process, drawn from all over the training split: data files are often sorted by class."""
        total = length(self.task.train_data)
        indices = torch.from_numpy(np.random.default_rng(self.seed).permutation(total)[: batches * batch_size])
        with seeded(self.seed):
            return list(self.task.loader(self.task.train_data, batch_size, indices=indices))

    @cached_property
    def baseline_predict(self) -> Callable[[Inputs], torch.Tensor]:
        """The untouched model in eager mode."""
        return _eager(self.baseline.model)

    def reference(self) -> Cost:
        """Cost of the untouched model as the user runs it: an eager module timed against itself, sized in its exported form."""
        artifact = self.artifact(self.baseline, "fp32", "eager")
        with self.alone():
            latencies = tuple(self._least_disturbed(size) for size in self.task.serving_batch_sizes)
        return self._cost(latencies, artifact.folder, 0.0)

    def _least_disturbed(self, batch_size: int) -> Latency:
        """Time the untouched model a few times: whatever disturbs makes it slower, so the fastest was disturbed least."""
        tries = [self._latency(self.baseline_predict, batch_size, 2 * _SAMPLES) for _ in range(_REFERENCE_TRIES)]
        return min(tries, key=lambda found: found.p50_ms.value)

    def _cost(self, latencies: tuple[Latency, ...], folder: Path, cold_start_ms: float) -> Cost:
        with self.working():  # compressing takes seconds
            size, compressed = size_of(folder)
        return Cost(latencies, size, compressed, self.threads, cold_start_ms, machine_fingerprint())

    # ---- private ----------------------------------------

    def _graph(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        graph_dtype = lowering.graph_dtype(dtype, mode)
        key = self.key(prefix.key, "quantize", {"dtype": graph_dtype}, method=lowering.method_versions(graph_dtype, "eager"))

        def make(folder: Path) -> None:
            with self.working():
                lowering.lower_graph(prefix.model, graph_dtype, self.calibration, folder)

        return self.stage(key, "quantize", graph_dtype, make, "compiling")

    def _prune(self, parent: Prefix, recipe: Recipe) -> Prefix:
        settings = recipe.settings("prune")
        method = pruners.method(str(settings["prune.method"]))
        key = self.key(parent.key, "prune", settings, method=method.version)

        def make(folder: Path) -> None:
            with self.working():
                batches = self._sampled(_PRUNE_BATCHES, self.task.batch_size)
                data = PruneData(inputs=take(batches[0][0], 2), batches=batches, loss=self.task.metric_kind.loss)
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
        ranks = schedule != "none" and bool(orders.method(order).options["needs_difficulty"])
        taught = self._own_teacher if loss != "none" or ranks else None
        key = self.key(parent.key, "train", settings, method=versions, teacher=taught)
        # Stages of their own, made before this one begins, so that no second is counted twice.
        made = self.cache.find(key) is not None
        if loss != "none" and not made:
            self._check_distillation(parent, loss)
        teacher = self._teacher if loss != "none" and not made else None
        difficulty = self._difficulty if ranks and not made else None

        def make(folder: Path) -> dict[str, Any]:
            trained = train_model(
                parent.model, self.task, settings, masks=parent.masks, teacher=teacher,
                difficulty=difficulty, seed=self.seed,
                checkpoint=self._checkpoint(key), on_epoch=self._evaluate_rung, gate=self.working, stop=self.stop,
            )  # fmt: skip
            save_model(folder, trained.model, parent.masks)
            lent = self._teaching_seconds(recipe, difficulty is not None) if teacher or difficulty is not None else 0.0
            return {**_trained_facts(trained), "train_seconds": trained.seconds + lent}

        try:
            entry = self.stage(key, "train", f"{schedule}/{loss}", make, "training")
        except StoppedEarlyError:
            self._checkpoint(key).unlink(missing_ok=True)  # nobody goes on with it
            raise
        self._checkpoint(key).unlink(missing_ok=True)  # only now is the training's result safe
        seconds = parent.train_seconds + entry.facts["train_seconds"]
        return self._restored(entry, (*parent.lineage, key), seconds, parent.samples_seen + entry.facts["samples_seen"])

    def _restored(self, entry: Entry, lineage: tuple[str, ...], train_seconds: float, samples_seen: int) -> Prefix:
        with self.working():
            model, masks = restore_model(entry.folder)
            return Prefix(model, masks, lineage, train_seconds, samples_seen, structure_of(model))

    def _check_distillation(self, parent: Prefix, loss: str) -> None:
        """Refuse a distillation that cannot mean anything here, before a teacher is run or an epoch paid for."""
        with self.working():
            check_distillation(loss, self.task.kind, _eager(parent.model)(self.serving_inputs(2)))

    def _teaching_seconds(self, recipe: Recipe, ranked: bool) -> float:
        """What a training owes to its teacher: running it, ranking by it and, where nothing else paid for it, training it."""
        seconds = self._teacher_entry.seconds + (self._difficulty_entry.seconds if ranked else 0.0)
        untrained_teacher = recipe.get("train.start") == "scratch" and self.task.teacher is None
        return seconds + (self.baseline.train_seconds if untrained_teacher else 0.0)

    @cached_property
    def _own_teacher(self) -> str | None:
        with self.working():
            return self.task.teacher_hash

    @cached_property
    def _teaching_model(self) -> nn.Module:
        with self.working():
            return self.task.build_teacher() or self.baseline.model

    @cached_property
    def _teacher_entry(self) -> Entry:
        key = self.key(self.baseline.key, "teacher", {"own": self._own_teacher})

        def make(folder: Path) -> None:
            with seeded(self.seed):
                logits = teacher_logits(self._teaching_model, self.task, gate=self.working, stop=self.stop)
            if logits is not None:
                torch.save(logits, folder / "logits.pt")

        return self.stage(key, "teacher", "logits", make, "training")

    @cached_property
    def _teacher(self) -> Teacher:
        saved = self._teacher_entry.folder / "logits.pt"
        return Teacher(self._teaching_model, torch.load(saved, weights_only=True) if saved.exists() else None)

    @cached_property
    def _difficulty_entry(self) -> Entry:
        teacher = self._teacher
        key = self.key(self.baseline.key, "difficulty", {"own": self._own_teacher})

        def make(folder: Path) -> None:
            with self.working(), seeded(self.seed):
                np.save(folder / "difficulty.npy", score_difficulty(teacher, self.task))

        return self.stage(key, "difficulty", "teacher loss", make, "training")

    @cached_property
    def _difficulty(self) -> NDArray[np.float64]:
        return np.load(self._difficulty_entry.folder / "difficulty.npy", allow_pickle=False)  # type: ignore[no-any-return]

    def _scores(self, prefix: Prefix, dtype: str, mode: str) -> Scores:
        numerics = lowering.numerics(dtype, mode)
        key = self.key(prefix.key, "accuracy", {"numerics": numerics, "split": "validation"})

        # Made before the stage begins, so that compiling is not charged to measuring.
        predict = None if self.cache.find(key) else self._predict(prefix, dtype, mode)

        def make(folder: Path) -> None:
            run = predict or self._predict(prefix, dtype, mode)
            with self.working():
                scores = score_model(run, self.task.loader(self.task.validation_data, self.task.batch_size), self.task.metric_kind)
            np.savez(folder / "scores.npz", scores=scores.scores, targets=scores.targets)

        entry = self.stage(key, "accuracy", numerics, make, "measuring")
        with np.load(entry.folder / "scores.npz", allow_pickle=False) as saved:
            return Scores(saved["scores"], saved["targets"])

    def _predict(self, prefix: Prefix, dtype: str, mode: str) -> Callable[[Inputs], torch.Tensor]:
        if dtype == "fp32" and lowering.numerics(dtype, mode) == lowering.numerics("fp32", "eager"):
            return _eager(prefix.model)
        artifact = self.artifact(prefix, dtype, mode)
        with self.working():  # some modes compile while loading
            return lowering.load(artifact.folder, mode, self.threads)

    def _latency(self, candidate: Callable[[Inputs], torch.Tensor], batch_size: int, samples: int) -> Latency:
        return measure_latency(candidate, self.baseline_predict, self.serving_inputs(batch_size), samples=samples)

    def _evaluate_rung(self, epoch: Epoch) -> None:
        kind = self.task.metric_kind
        with self.working():
            scores = score_model(_eager(epoch.model), self.task.loader(self.task.validation_data, self.task.batch_size), kind)
        self.on_rung(Rung(epoch.number, epoch.epochs, float(kind.summarize(scores.scores, scores.targets))))

    # ---- for other rooms that make stages ----------------------------------------

    def key(self, parent: str, stage: str, settings: Mapping[str, Any], **context: Any) -> str:
        """Key of a stage of this task, seed and these library versions."""
        return stage_key(
            parent, stage, settings, task=self.task.fingerprint, libraries=library_versions(), seed=self.seed, **context
        )

    def stage(self, key: str, stage: str, method: str, make: Callable[[Path], Mapping[str, Any] | None], category: str) -> Entry:
        """Return the entry of `key`, made by `make` where there is none, and tell the observer."""
        started = self._work_clock()
        try:
            entry = self.cache.get_or_make(key, stage, method, make, clock=self._work_clock)
        except TrialError:
            self._on_broken(self._work_clock() - started, category)
            raise
        self._observe(entry, category)
        return entry

    def _checkpoint(self, key: str) -> Path:
        folder = self.cache.folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        return folder / f"{key}.pt"

    def _work_clock(self) -> float:
        return time.perf_counter() - self.waited_s

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Hold the machine together with others who work; nobody times meanwhile."""
        started = time.perf_counter()
        with self.quiet.shared():
            self.waited_s += time.perf_counter() - started
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the machine alone, to time something."""
        started = time.perf_counter()
        with self.quiet.exclusive(stop=self.stop):
            self.waited_s += time.perf_counter() - started
            yield


def _trained_facts(trained: Trained) -> dict[str, Any]:
    facts = {"samples_seen": trained.samples_seen, "train_seconds": trained.seconds}
    return facts | {"fresh_samples": trained.samples_seen - trained.resumed_samples}


def _eager(model: nn.Module) -> Callable[[Inputs], torch.Tensor]:
    def predict(inputs: Inputs) -> torch.Tensor:
        with torch.inference_mode():
            return call(model, inputs)

    return predict
