"""Runs a recipe: prune, train, quantize, compile, measure (or train, prune, ...); every step is a stage that the cache keeps.

Two facts make a search cheap, and both live here. A trained prefix has many lowerings: keys of stages form a tree, so a second
lowering finds the weights made. And cost does not depend on weights: it is stored under the *structure* (shapes and zeros of the
weights), so a recipe whose structure was timed before is never timed again. Modes that run the same quantized graph share one
accuracy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from torch import nn

from autocut.errors import InfeasibleRecipeError, quoted
from autocut.measure.accuracy import Scores, to_accuracy
from autocut.measure.cores import Loan
from autocut.measure.early_verdict import is_far_below, paired
from autocut.measure.footprint import compressed_size_bytes, size_bytes
from autocut.measure.latency import is_settled
from autocut.measurement import Accuracy, Cost, Measured, Measurement
from autocut.pipeline.batch_dependence import depends_on_batch, worst_of
from autocut.pipeline.lowering_stages import compile_stage
from autocut.pipeline.measuring_stages import (
    Timing,
    cost_stage,
    read_cost,
    read_scores,
    run_eagerly,
    scored_batch_size,
    scores_stage,
)
from autocut.pipeline.model_stages import prune_stage, read_model, scratch_stage, student_stage, train_stage, untouched_stage
from autocut.pipeline.parity import Parity
from autocut.pipeline.scoring import SlowScoring, plan_scoring, sampled, score
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import EventSink, Stage, StageContext, StageRunner
from autocut.pipeline.teacher_outputs import TeacherStages
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import ModelLoaded, ScoringPlan
from autocut.stages import lowering
from autocut.stages.lowering import Predict
from autocut.stages.model_files import Prefix

_TIMINGS = 3
"""A structure whose timings were all disturbed is timed at most this often."""


class Pipeline:
    """Runs recipes in this process; `report` gets an event for each stage, epoch and loaded model (see `StageRunner`).

    `untouched` says how the untouched model is made. With `untrained_stage` a pipeline can time, but must not score.
    """

    def __init__(
        self,
        context: StageContext,
        report: EventSink = lambda _: None,
        untouched: Callable[[StageRunner], Stage[None]] = untouched_stage,
    ) -> None:
        self.runner = StageRunner(context, report)
        self._untouched = untouched
        self.teacher = TeacherStages(self.runner, lambda: self.baseline)

    @cached_property
    def baseline(self) -> Prefix:
        """The untouched model: the task's own weights, or trained from scratch where the task brings none."""
        return read_model(self.runner, self.runner.run(self._untouched(self.runner)))

    @cached_property
    def scratch(self) -> Prefix:
        """The task's model before any training, for recipes that train it in another way than the untouched model was.

        Raises:
            InfeasibleRecipeError: the task brings trained weights.
        """
        if self.runner.context.task.is_pretrained:
            raise InfeasibleRecipeError("train.start must be 'trained' where the task brings trained weights, got 'scratch'")
        return read_model(self.runner, self.runner.run(scratch_stage(self.runner)))

    def student(self, name: str) -> Prefix:
        """Return the task's student `name` before any training.

        Raises:
            InfeasibleRecipeError: the task has no such student.
        """
        if name not in (known := self.runner.context.task.student_names):
            raise InfeasibleRecipeError(
                f"model.student must be one of the task's {', '.join(known) or '(none)'}, got {quoted(name)}"
            )
        return read_model(self.runner, self.runner.run(student_stage(self.runner, name)))

    def prefix(self, recipe: Recipe) -> Prefix:
        """Return the pruned and trained model of `recipe`.

        Raises:
            TrialError: the recipe is infeasible, diverged, or its time is up.
        """
        model = origin = self._start(recipe)
        for stage_after in self._model_stages(recipe, origin.model):
            model = read_model(self.runner, self.runner.run(stage_after(model)), model)
        return model

    def _start(self, recipe: Recipe) -> Prefix:
        """Return the model that `recipe` cuts and trains."""
        if recipe.student is not None:
            return self.student(recipe.student)
        return self.baseline if recipe.starts_trained else self.scratch

    def _model_stages(self, recipe: Recipe, original: nn.Module) -> list[Callable[[Prefix], Stage[Any]]]:
        """List the stages from `original` to the model of `recipe`, each as a function of the model that it starts from.

        What cuts trained weights goes on after the stages of its parent. This is the one place that knows the order of the stages.
        """
        stages = [] if recipe.parent is None else self._model_stages(recipe.parent, original)
        if recipe.changes("prune.method"):
            stages.append(lambda model: prune_stage(self.runner, model, recipe, original))
        if recipe.is_trained and not recipe.prunes_last:
            stages.append(lambda model: train_stage(self.runner, self.teacher, model, recipe))
        return stages

    def artifact(self, model: Prefix, dtype: str, mode: str) -> Entry:
        """Return the saved, runnable form of `model` in `dtype` under `mode`.

        Raises:
            TrialError: the pair cannot be real on this machine or with this model, or a compiler refused the model.
        """
        return self.runner.run(compile_stage(self.runner, model, dtype, mode))

    def load(self, model: Prefix, dtype: str, mode: str, lend: Callable[[], int] | None = None) -> Predict:
        """Return what runs `model` in `dtype` under `mode` to be scored; it is compiled only if that changes its numbers.

        `lend` takes free cores and returns the number of threads to load with. Default: as many as a served model has.
        """
        if self.runs_as_it_is(dtype, mode):
            return run_eagerly(model.model, self.runner.context.served_on)
        return self.open(self.artifact(model, dtype, mode), model, dtype, mode, lend)

    def open(self, artifact: Entry, model: Prefix, dtype: str, mode: str, lend: Callable[[], int] | None = None) -> Predict:
        """Return what runs `artifact`, which was made of `model`; `lend` as in `load`.

        Raises:
            InfeasibleRecipeError: it does not answer as `model` does.
        """
        with self.runner.working_in_steps():  # some modes compile while loading
            started = self.runner.work_clock()
            threads = self.runner.context.threads if lend is None else lend()
            predict = lowering.load(artifact.folder, mode, threads, self.runner.context.served_on)
            self.runner.report(ModelLoaded(f"{dtype}/{mode}", self.runner.work_clock() - started))
            self._parity.require(predict, artifact.key, model, dtype)
        return predict

    def measure(self, recipe: Recipe) -> Measured:
        """Run `recipe` and measure it on the validation split."""
        model = self.prefix(recipe)
        accuracy = self.accuracy(model, *recipe.lowering)
        cost = self.cost(model, *recipe.lowering)
        return Measured(Measurement(accuracy, cost), model.train_seconds, model.samples_seen, model.lineage, model.structure)

    def price(self, recipe: Recipe) -> Cost:
        """Time the structure of `recipe` without scoring it."""
        return self.cost(self.prefix(recipe), *recipe.lowering)

    def accuracy(self, model: Prefix, dtype: str, mode: str) -> Accuracy:
        """Return the validation accuracy, shared by all modes that run the same quantized graph."""
        scored = self._scored(model, dtype, mode)
        scores = read_scores(scored)
        untouched = paired(self._scores(self.baseline, *UNTOUCHED.lowering), scores)
        with self.runner.working():
            accuracy = to_accuracy("validation", scores, self.runner.context.task.metric_kind, untouched)
        return replace(accuracy, batch_size=scored_batch_size(scored))

    def scores(self, recipe: Recipe) -> Scores:
        """Return the scores of `recipe` on the validation split, each example's by itself."""
        return self._scores(self.prefix(recipe), *recipe.lowering)

    def scored_batch_size(self, model: Prefix, dtype: str, mode: str) -> int | None:
        """Return the batch size of serving that the model must be scored at; None where its answers do not depend on the batch."""
        return None if self.runs_as_it_is(dtype, mode) else scored_batch_size(self._scored(model, dtype, mode))

    def plan_scoring(self, budget_s: float) -> ScoringPlan | None:
        """Decide, once for a study, how its models are scored; from now on this pipeline does so."""
        plan = plan_scoring(self.runner, self.untouched_predict, budget_s)
        self.runner.context = replace(self.runner.context, scoring=plan)
        return plan

    def cost(self, model: Prefix, dtype: str, mode: str) -> Cost:
        """Return latency and size of the structure of `model` in `dtype` under `mode`, timed once for all weights.

        A disturbed timing is repeated when somebody asks for it again, a few times; the least disturbed one counts.
        """
        is_reference = model.structure == self.baseline.structure and (dtype, mode) == UNTOUCHED.lowering

        def prepare() -> Entry:
            artifact = self.artifact(self.baseline if is_reference else model, dtype, mode)
            if not is_reference:
                self.cost(self.baseline, *UNTOUCHED.lowering)
            return artifact

        def measure(artifact: Entry) -> Cost:
            if is_reference:
                return self._timing.time_untouched(self.artifact(self.baseline, dtype, mode).folder)
            return self.time_artifact(artifact, model, dtype, mode)

        known: list[Cost] = []
        for again in range(1 if is_reference else _TIMINGS):
            entry = self.runner.run(cost_stage(self.runner, model.structure, (dtype, mode), prepare, measure, again))
            known.append(read_cost(entry))
            if not (entry.cached and known[-1].is_disturbed):
                break
        return min(known, key=lambda cost: cost.disturbance)

    def time_artifact(self, artifact: Entry, model: Prefix, dtype: str, mode: str, samples: int | None = None) -> Cost:
        """Time `artifact`, made of `model`, against the untouched model, alone on this machine.

        Raises:
            InfeasibleRecipeError: it does not answer as `model` does.
        """
        references = self.cost(self.baseline, *UNTOUCHED.lowering).latencies
        check = partial(self._parity.require, artifact=artifact.key, model=model, dtype=dtype)
        return self._timing.time_artifact(artifact.folder, mode, references, samples, check)

    def final_cost(self, model: Prefix, dtype: str, mode: str, artifact: Entry, samples: int) -> Cost:
        """Time the model in `artifact` once more, with more samples, unless its calls at some batch size are too slow for more.

        The timing of its structure then stands for it. The verifier times the model again in any case.
        """
        references = self.cost(self.baseline, *UNTOUCHED.lowering).latencies
        if all(reference.p90_ms is not None for reference in references):
            return self.time_artifact(artifact, model, dtype, mode, samples)
        known = self.cost(model, dtype, mode)
        pairs = zip(known.latencies, references, strict=True)
        if not all(is_settled(own, samples, knows_p90=reference.p90_ms is not None) for own, reference in pairs):
            return self.time_artifact(artifact, model, dtype, mode, samples)
        with self.runner.working():
            return replace(
                known, size_bytes=size_bytes(artifact.folder), compressed_size_bytes=compressed_size_bytes(artifact.folder)
            )

    @cached_property
    def untouched_predict(self) -> Predict:
        """Runs the untouched model as the user does: eagerly."""
        return run_eagerly(self.baseline.model, self.runner.context.served_on)

    @cached_property
    def _timing(self) -> Timing:
        return Timing(self.runner, self.untouched_predict)

    @cached_property
    def _parity(self) -> Parity:
        return Parity(self.runner.context)

    def _scores(self, model: Prefix, dtype: str, mode: str) -> Scores:
        return read_scores(self._scored(model, dtype, mode))

    def _scored(self, model: Prefix, dtype: str, mode: str) -> Entry:
        context = self.runner.context
        task, plan, numerics = context.task, context.scoring, lowering.numerics(dtype, mode, context.served_on)
        settings: dict[str, Any] = {"numerics": numerics, "split": "validation"}
        if plan is None:
            load = partial(self.load, model, dtype, mode)
            make = self._at_serving_sizes(dtype, mode, partial(score, self.runner, examples=task.validation_data))
            return self.runner.run(scores_stage(self.runner, model.key, settings, numerics, load, make))
        settings["examples"] = plan.examples
        is_untouched = model.key == self.baseline.key and self.runs_as_it_is(dtype, mode)
        max_drop = None if is_untouched else context.max_drop
        is_decided = None
        if max_drop is not None:
            settings["max_drop"] = max_drop
            untouched = self._scores(self.baseline, *UNTOUCHED.lowering)
            is_decided = partial(is_far_below, untouched=untouched, kind=task.metric_kind, max_drop=max_drop)
        may_borrow = self.runs_as_it_is(dtype, mode) or lowering.takes_any_threads(mode, context.served_on)
        with self.lending(may_borrow=may_borrow) as lend:
            positions = sampled(plan.of, plan.examples, context.seed)
            scoring = SlowScoring(self.runner, positions, plan.seconds_each, lend, is_decided)
            load = partial(self.load, model, dtype, mode, lend)
            make = self._at_serving_sizes(dtype, mode, partial(scoring.score, examples=task.validation_data))
            return self.runner.run(scores_stage(self.runner, model.key, settings, numerics, load, make))

    def _at_serving_sizes(
        self, dtype: str, mode: str, score: Callable[..., Scores]
    ) -> Callable[[Predict], tuple[Scores, int | None]]:
        """Return what scores a loaded model: `score` in the task's batches, or as it is served where that changes the answers."""
        context = self.runner.context
        sizes = tuple(context.task.serving_batch_sizes)

        def scored(predict: Predict) -> tuple[Scores, int | None]:
            if self.runs_as_it_is(dtype, mode):
                return score(predict), None
            with self.runner.working():
                depends = depends_on_batch(
                    predict, context.samples.calibration[0], sizes, dtype, is_slow=context.scoring is not None
                )
            if not depends:
                return score(predict), None
            size, scores = worst_of(sizes, lambda size: score(predict, batch_size=size), context.task.metric_kind)
            return scores, size

        return scored

    @contextlib.contextmanager
    def lending(self, *, may_borrow: bool) -> Iterator[Callable[[], int]]:
        """Give a function that takes free cores for slow scoring, and returns the number of threads. They go back at the end."""
        if self.runner.context.scoring is None or not may_borrow:
            yield lambda: self.runner.context.threads
            return
        loan = Loan(self.runner.context.quiet.folder)
        try:
            yield loan.renew
        finally:
            loan.close()

    def runs_as_it_is(self, dtype: str, mode: str) -> bool:
        """Whether the numbers of the pair are those of the model run eagerly, so that nothing is compiled to score it."""
        device = self.runner.context.served_on
        eager = lowering.numerics(*UNTOUCHED.lowering, device)
        return dtype == UNTOUCHED.lowering[0] and lowering.numerics(dtype, mode, device) == eager
