"""Runs one job in a worker process, and reports each result as soon as it is known.

Every job has a fresh process, so a crash, a leak or a hang cannot reach the next job. A hang ends by the clock (`Watchdog`).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autocut import errors
from autocut.errors import InputError, StoppedEarlyError, StudyError
from autocut.execution.memory_limit import is_out_of_memory, limited_memory
from autocut.execution.watchdog import Watchdog
from autocut.measurement import Rung
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import (
    TASK_FAILED,
    BaselineReady,
    Event,
    Job,
    JobEnded,
    RecipeFailed,
    RecipeFinalized,
    RecipeMeasured,
    RecipePriced,
    RecipeStarted,
    RungReached,
    ScoringPlanned,
    Setting,
    TrainingPlanned,
    WorkerFault,
    WorkerUp,
)

if TYPE_CHECKING:
    from autocut.pipeline.pipeline import Pipeline
    from autocut.pipeline.stage_runner import PipelineEvent

_KILL_AFTER_S = 2.0
"""Grace between the deadline, which a worker keeps by itself, and the kill."""
_TEST_SHARE = 0.06
"""Of the budget: what scoring one model on the test split may take where scoring is slow."""


def run_job(job: Job, setting: Setting, report: Callable[[Event], None]) -> None:
    """Run `job`, and report events as they happen.

    A recipe that cannot be measured is reported as `RecipeFailed`, an error that no other recipe would survive as `WorkerFault`.
    """
    from autocut.measure.footprint import peak_resident_bytes, resident_bytes

    started, resident = time.perf_counter(), resident_bytes()
    left_s = job.deadline - setting.clock()
    if left_s <= 0:
        for recipe in job.recipes:
            report(RecipeFailed(recipe, "interrupted", "the time of the search was up"))
        return
    watchdog = Watchdog(job.deadline + _KILL_AFTER_S, setting.clock)
    try:
        worker = _Worker(job, setting, report, watchdog)
        with limited_memory(setting.worker_bytes):
            _with_own_cores(setting.threads, worker.run)
        grown = max(0, peak_resident_bytes() - resident)
        seconds = time.perf_counter() - started
        report(JobEnded(worker.pipeline.runner.waited_s, seconds, grown, leaves_rest=worker.leaves_rest))
    except InputError as error:
        report(WorkerFault(error.message, error.hint))
    finally:
        watchdog.end()


class _Worker:
    """One job's pipeline, and the recipe that it works on."""

    def __init__(self, job: Job, setting: Setting, report: Callable[[Event], None], watchdog: Watchdog) -> None:
        self.job = job
        self.setting = setting
        self.report = report
        self.watchdog = watchdog
        self.recipe = UNTOUCHED
        self.is_harmed = self.leaves_rest = False
        self.pipeline = _open_pipeline(job, setting, report, self._on_event, watchdog)

    def run(self) -> None:
        """Do what the kind of the job asks for."""
        kinds = {
            "baseline": self.baseline,
            "price": self.price,
            "prepare": self.prepare,
            "train": self.train,
            "measure": self.measure,
            "finalize": self.finalize,
        }
        with self.pipeline.runner.context.quiet.urgent() if self.job.is_urgent else contextlib.nullcontext():
            kinds[self.job.kind]()

    def baseline(self) -> None:
        """Build or train the untouched model and time it against itself. Without it there is no search."""
        failure = self._try(UNTOUCHED, self._measure_baseline)
        if failure is not None and failure.outcome != "interrupted":
            reason = failure.reason.partition("\n")[0]
            message = f"the untouched model must run and be measured, but is not: {reason}"
            self.report(WorkerFault(message, "find out more with: autocut check"))

    def price(self) -> None:
        """Time structures before the untouched model is trained. What fails here is tried again with the trained weights."""
        from autocut.pipeline.model_stages import untrained_stage
        from autocut.pipeline.pipeline import Pipeline

        self.pipeline = Pipeline(self.pipeline.runner.context, self._on_event, untrained_stage)
        for recipe in self.job.recipes:
            self._begin(recipe)
            self._try(recipe, lambda priced: self.report(RecipePriced(priced, self.pipeline.price(priced))))
            gc.collect()

    def prepare(self) -> None:
        """Lower the recipes' models, and measure nothing. What fails here is tried again, and told, when it is measured."""
        for recipe in self.job.recipes:
            self._begin(recipe)
            self._try(recipe, lambda made: self.pipeline.artifact(self.pipeline.prefix(made), *made.lowering))

    def train(self) -> None:
        """Train what the recipes need, and measure nothing."""
        self._run_recipes(lambda _: None)

    def measure(self) -> None:
        """Measure the recipes in their order."""
        self._run_recipes(self._measure_one)

    def _run_recipes(self, finish: Callable[[Recipe], object]) -> None:
        """Make each recipe's model and `finish` it. Recipes share prefixes and trainings: the first pays, and they fail together.

        Once this process may be harmed, it begins no other recipe: it would fail by the fault of the one before.
        """
        failures: dict[Recipe, RecipeFailed] = {}
        # If the untouched model must be trained again, its rungs are its own. Its failure is reported by what needs it.
        self._try(UNTOUCHED, lambda _: self.pipeline.baseline)
        for recipe in self.job.recipes:
            if self.is_harmed and failures.keys().isdisjoint((*recipe.trainings, recipe.prefix)):
                self.leaves_rest = True
                continue
            self._begin(recipe)
            for one in dict.fromkeys((*recipe.trainings, recipe.prefix)):  # the rungs of a parent are its own
                if failed := failures.get(one) or self._try(one, self.pipeline.prefix):
                    failures[one] = failures[recipe.prefix] = failed
                    break
            failure = failures.get(recipe.prefix) or self._try(recipe, finish)
            if failure:
                self._report_failed(replace(failure, recipe=recipe))
            gc.collect()

    def finalize(self) -> None:
        """Export the recipes, measure them on the locked test split, verify them in a fresh process; one after the other."""
        for recipe, trial in zip(self.job.recipes, self.job.trials, strict=True):
            if self.is_harmed:
                return  # the search asks again for what is not finalized
            self._begin(recipe)
            if failure := self._try(recipe, partial(self._finalize_one, trial=trial)):
                self._report_failed(failure)
            gc.collect()

    def _measure_baseline(self, recipe: Recipe) -> None:
        from autocut.measure.footprint import weight_bytes
        from autocut.measure.gpu_state import gpu_state
        from autocut.measure.machine import describe_machine

        self._plan_training()
        entry = self.pipeline.runner.cache.find(self.pipeline.baseline.key)
        facts = entry.facts if entry else {}
        scoring = self.pipeline.plan_scoring(self.job.search_seconds)
        if scoring is not None:
            self.report(ScoringPlanned(scoring, weight_bytes(self.pipeline.baseline.model)))
        measured = self.pipeline.measure(recipe)
        cost, accuracy = measured.measurement.cost, measured.measurement.accuracy
        train_seconds, samples_seen = facts.get("train_seconds", 0.0), facts.get("samples_seen", 0)
        context = self.pipeline.runner.context
        epochs = None if context.task.is_pretrained else context.untouched_epochs or context.task.epochs
        machine = asdict(describe_machine()) | gpu_state(context.served_on)
        self.report(BaselineReady(cost, accuracy, machine, train_seconds, samples_seen, epochs=epochs, scoring=scoring))
        self.report(RecipeMeasured(recipe, measured))

    def _plan_training(self) -> None:
        """Train the untouched model for as many epochs as fit the budget."""
        from autocut.pipeline.training_plan import plan_untouched

        runner = self.pipeline.runner
        if plan := plan_untouched(runner, self.job.deadline - self.setting.clock()):
            runner.context = replace(runner.context, untouched_epochs=plan.epochs)
            self.report(TrainingPlanned(plan.epochs, runner.context.task.epochs, plan.seconds, plan.asked_s))

    def _measure_one(self, recipe: Recipe) -> None:
        self.report(RecipeMeasured(recipe, self.pipeline.measure(recipe)))

    def _finalize_one(self, recipe: Recipe, trial: int) -> None:
        from autocut.deploy.finalize import FinalizationRequest, finalize, measure_untouched

        job, setting = self.job, self.setting
        if job.reference is None:
            raise RuntimeError("a point was finalized before the untouched model was measured")
        scoring_s = _TEST_SHARE * job.search_seconds
        if recipe == UNTOUCHED:
            measured = measure_untouched(self.pipeline, scoring_s, job.search_seconds)
            self.report(RecipeFinalized(recipe, measured, None, None, None))
            return
        to = Path(setting.folder) / "bundles" / f"trial-{trial:04d}"
        request = FinalizationRequest(
            to,
            trial,
            setting.price,
            job.reference,
            job.search_seconds,
            setting.command,
            time.monotonic() + job.deadline - setting.clock(),
            share_examples=setting.share_examples,
            scoring_s=scoring_s,
            serving=setting.serving,
            validation=job.validation.get(recipe),
            spent_s=job.spent_s,
        )
        done = finalize(self.pipeline, recipe, request)
        self.pipeline.runner.tell_waiting()  # what it takes is predicted from its seconds without this
        self.report(RecipeFinalized(recipe, done.measurement, str(done.folder), done.digest, done.refusal))

    def _begin(self, recipe: Recipe) -> None:
        """Report that `recipe` starts: if the process dies from now on, it has died of it. A compiler that hangs will be killed."""
        self.watchdog.allow(self.job.patience_s)
        self.report(RecipeStarted(recipe))

    def _try(self, recipe: Recipe, action: Callable[[Recipe], object]) -> RecipeFailed | None:
        """Run `action(recipe)`; rungs belong to `recipe` meanwhile."""
        self.recipe = recipe
        return _catch_failure(recipe, partial(action, recipe), self.setting)

    def _report_failed(self, failure: RecipeFailed) -> None:
        """Report the failure. A bug may harm the process; a dataset that has lost its file or its connection goes on to raise."""
        self.report(failure)
        self.is_harmed |= failure.outcome == "bug" or failure.reason.startswith(TASK_FAILED)

    def _on_event(self, event: PipelineEvent) -> None:
        """Report the event; after a rung, end a training that cannot reach the front any more.

        Raises:
            StoppedEarlyError: the metric is below the job's floor for this rung.
        """
        if not isinstance(event, Rung):
            self.report(event)
            return
        self.report(RungReached(self.recipe, event))
        floor = self.job.floor(self.recipe, event)
        if event.metric < floor:
            raise StoppedEarlyError(
                f"stopped after epoch {event.epoch} of {event.epochs}: at its cost the front needs {floor:.4g} by then, "
                f"got {event.metric:.4g}"
            )


def _catch_failure(recipe: Recipe, action: Callable[[], object], setting: Setting) -> RecipeFailed | None:
    """Run `action`. Return how `recipe` failed by it, or None if it did not fail.

    Raises:
        InputError: something that no other recipe would survive either, such as a full disk of the stages.
    """
    from autocut.pipeline.full_disk import told_whose_disk_is_full

    try:
        with told_whose_disk_is_full(Path(setting.folder)):
            action()
    except errors.DeadlineError as error:
        return RecipeFailed(recipe, "interrupted", error.message)
    except StoppedEarlyError as error:
        return RecipeFailed(recipe, "stopped", error.message)
    except (errors.InfeasibleRecipeError, errors.MissingDependencyError) as error:
        return RecipeFailed(recipe, "infeasible", error.message)
    except errors.TrialError as error:
        if is_out_of_memory(error) and not isinstance(error, errors.OutOfMemoryError):
            return RecipeFailed(recipe, "failed", _out_of_memory(error.message))
        return RecipeFailed(recipe, "failed", f"{type(error).__name__}: {error.message}")
    except (errors.BundleError, errors.VerificationError) as error:
        return RecipeFailed(recipe, "failed", error.message)
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            return RecipeFailed(recipe, "failed", _out_of_memory(str(error)))
        if (where := _line_of_task(error, setting.task_path)) is not None:
            return RecipeFailed(recipe, "failed", f"{TASK_FAILED}: {type(error).__name__}: {error} ({where})")
        # The model is the user's and the libraries are young: an unexpected error is reported as a bug, and ends one trial alone.
        return RecipeFailed(recipe, "bug", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return None


def _out_of_memory(message: str) -> str:
    first = message.strip().partition("\n")[0][:200] or "an allocation failed"
    return f"OutOfMemoryError: the worker needs more memory than it may have (--worker-memory): {first}"


def _line_of_task(error: Exception, task_path: str | None) -> str | None:
    """Return the line of the task's file that raised `error`; None where other code has, perhaps when the task called it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if task_path is None or Path(last.filename).resolve() != Path(task_path).resolve():
        return None
    return f"{Path(last.filename).name}, line {last.lineno}"


def _open_pipeline(
    job: Job,
    setting: Setting,
    report: Callable[[Event], None],
    on_event: Callable[[PipelineEvent], None],
    watchdog: Watchdog,
) -> Pipeline:
    """Import what every job needs, load the task, and report that this worker is up; the pipeline reports to `on_event`."""
    from autocut.pipeline.signing import Signer, own_secret

    keep_libraries_quiet()
    folder = Path(setting.folder)
    secret = setting.secret or own_secret()
    # Whoever knows the name could put code there, which torch would run. So it can be told from the key alone, and for this folder.
    place = Signer(secret).sign("inductor", str(folder.resolve()))[:16]
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "stages" / "inductor" / place))
    import torch

    from autocut.measure.quiet import QuietLock
    from autocut.pipeline.pipeline import Pipeline
    from autocut.pipeline.stage_cache import StageCache
    from autocut.pipeline.stage_runner import StageContext
    from autocut.stages.train import Device
    from autocut.task.loading import load_task

    torch.set_num_threads(1)  # as everywhere a task is loaded: the last bits of what it computes may depend on it
    quiet, served_on = QuietLock(waiting=watchdog.paused), Device(setting.serve_on)
    task = load_task(setting.task_path)
    # Before this process asks for the machine: until now the driver has held it for us, and another may wait to be alone.
    report(WorkerUp())
    task.know_data(setting.data_hash)
    # A baseline job makes the untouched model: if its weights have changed meanwhile, they get a key of their own.
    if job.kind != "baseline" and (known := setting.known_task):
        task.know(known.fingerprint, is_pretrained=known.is_pretrained, source_sha256=known.source_sha256)
    with quiet.shared():
        # Reads and hashes data, unless the process that this one was forked from has read it: not while another process times.
        _ = task.fingerprint, task.train_data, task.validation_data
        served_on.open(serves=True)
    torch.set_num_threads(setting.threads)  # whatever number the task has set: every claim names this one
    _require_same_machine(job)
    cache = StageCache(folder / "stages", setting.cache_bytes, waiting=watchdog.paused, secret=secret)
    context = StageContext(
        task,
        cache,
        quiet,
        setting.seed,
        setting.threads,
        stop=lambda: setting.clock() >= job.deadline,
        untouched_epochs=job.untouched_epochs,
        scoring=job.scoring,
        max_drop=job.max_drop,
        device=Device(setting.train_on, setting.train_precision, setting.train_memory_format),
        served_on=served_on,
    )
    return Pipeline(context, on_event)


def _with_own_cores(threads: int, run: Callable[[], None]) -> None:
    """Call `run` while this process owns a core for each of its threads: who has borrowed one gives it back."""
    from autocut.measure.cores import owned

    with owned(threads):
        run()


def _require_same_machine(job: Job) -> None:
    """Refuse to divide the reference time of one machine by the speed-up of another.

    Raises:
        StudyError: the untouched model was timed on another kind of machine, and this job times too.
    """
    from autocut.measure.machine import machine_fingerprint

    if job.kind != "train" and job.reference is not None and job.reference.machine != machine_fingerprint():
        raise StudyError(
            f"a study's numbers must come from one kind of machine, {job.reference.machine}, got {machine_fingerprint()}",
            "search there, or begin a study of this machine in another folder: --out",
        )


def keep_libraries_quiet() -> None:
    """Keep other libraries' advice off the user's screen; their errors still come back as exceptions."""
    warnings.filterwarnings("ignore")
    for name in ("torch", "torchao", "onnxscript", "onnx_ir", "torch.onnx", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
