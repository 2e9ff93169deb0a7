"""What runs in a worker process: one job, in a fresh process, with every result reported as soon as it is known.

A fresh process each job keeps a crash, a leak or a hang from reaching the next one. A hang ends by the clock: `faulthandler`
kills the process from a C thread, which works even while a library holds the interpreter lock.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

from autocut.errors import (
    BundleError,
    DeadlineError,
    InfeasibleRecipeError,
    InputError,
    MissingDependencyError,
    OutOfMemoryError,
    StoppedEarlyError,
    StudyError,
    TrialError,
    VerificationError,
)
from autocut.measurement import Rung
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import (
    BaselineReady,
    Event,
    Job,
    JobEnded,
    ModelLoaded,
    RecipeFailed,
    RecipeFinalized,
    RecipeMeasured,
    RecipeStarted,
    RungReached,
    Setting,
    StageBroke,
    StageRan,
    WorkerFault,
    WorkerUp,
)

_KILL_AFTER_S = 2.0
"""Grace between the deadline, which a worker keeps by itself, and the kill."""


def run_job(job: Job, setting: Setting, report: Callable[[Event], None]) -> None:
    """Run `job`, reporting events as they happen.

    Whatever is wrong with a recipe is reported as `RecipeFailed`, and what no other recipe would survive either as `WorkerFault`.
    """
    started = time.perf_counter()
    left_s = job.deadline - time.time()
    if left_s <= 0:
        for recipe in job.recipes:
            report(RecipeFailed(recipe, "interrupted", "the time of the search was up"))
        return
    _kill_in(left_s + _KILL_AFTER_S)
    try:
        worker = _Worker(job, setting, report)
        {"baseline": worker.baseline, "measure": worker.measure, "finalize": worker.finalize}[job.kind]()
        report(JobEnded(worker.pipeline.waited_s, time.perf_counter() - started))
    except InputError as error:
        report(WorkerFault(error.message, error.hint))
    finally:
        faulthandler.cancel_dump_traceback_later()


class _Worker:
    """One job's pipeline and the recipe that it is working on."""

    def __init__(self, job: Job, setting: Setting, report: Callable[[Event], None]) -> None:
        _keep_libraries_quiet()
        folder = Path(setting.folder)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "stages" / "inductor"))
        import torch

        from autocut.measure.quiet import QuietLock
        from autocut.pipeline.pipeline import Pipeline
        from autocut.pipeline.stage_cache import StageCache
        from autocut.task.loading import load_task

        torch.set_num_threads(1)  # as wherever a task is loaded: the last bits of what it computes may depend on it
        quiet = QuietLock()
        task = load_task(setting.task_path)
        # Before asking for the machine: until now the driver has held it for us, and somebody may be waiting to be alone.
        report(WorkerUp())
        with quiet.shared():
            # Reads and hashes data, unless the process that this one was forked from has read it: not while somebody times.
            _ = task.fingerprint
        torch.set_num_threads(setting.threads)  # whatever the task has set: every claim names this number
        _require_same_machine(job)
        self.job = job
        self.setting = setting
        self.report = report
        self.recipe = UNTOUCHED
        self.pipeline = Pipeline(
            task,
            StageCache(folder / "stages", setting.cache_bytes),
            quiet,
            seed=setting.seed,
            threads=setting.threads,
            observe=lambda entry, category: report(
                StageRan(
                    entry.key,
                    entry.stage,
                    entry.method,
                    entry.seconds,
                    entry.cached,
                    category,
                    int(entry.facts.get("fresh_samples", 0)),
                )
            ),
            on_broken=lambda seconds, category: report(StageBroke(seconds, category)),
            on_loaded=lambda method, seconds: report(ModelLoaded(method, seconds)),
            on_rung=self._on_rung,
            stop=lambda: time.time() >= job.deadline,
        )

    def baseline(self) -> None:
        """Build or train the untouched model and time it against itself; without it there is no search."""
        failure = self._guarded(UNTOUCHED, self._measure_baseline)
        if failure is not None and failure.outcome != "interrupted":
            reason = failure.reason.partition("\n")[0]
            message = f"the untouched model must run and be measured, but is not: {reason}"
            self.report(WorkerFault(message, "find out more with: autocut check"))

    def _measure_baseline(self) -> None:
        from autocut.measure.machine import describe_machine

        baseline = self.pipeline.baseline
        entry = self.pipeline.cache.find(baseline.key)
        facts = entry.facts if entry else {}
        recipe = UNTOUCHED
        measured = self.pipeline.measure(recipe)
        machine = asdict(describe_machine())
        cost, accuracy = measured.measurement.cost, measured.measurement.accuracy
        self.report(BaselineReady(cost, accuracy, machine, facts.get("train_seconds", 0.0), facts.get("samples_seen", 0)))
        self.report(RecipeMeasured(recipe, measured))

    def measure(self) -> None:
        """Run the recipes in their order; those of one prefix share it: the first pays for it, and they fail together."""
        # Should it have to be trained again, its rungs are its own and nobody else's.
        self._guarded(UNTOUCHED, lambda: self.pipeline.baseline)
        failures: dict[Recipe, RecipeFailed] = {}
        for recipe in self.job.recipes:
            self._begin(recipe)
            self._make_parent(recipe)
            if recipe.prefix not in failures and (broken := self._guarded(recipe, partial(self.pipeline.prefix, recipe))):
                failures[recipe.prefix] = broken
            failure = failures.get(recipe.prefix) or self._guarded(recipe, partial(self._measure_one, recipe))
            if failure:
                self.report(replace(failure, recipe=recipe))
            gc.collect()

    def _make_parent(self, recipe: Recipe) -> None:
        """Should the parent have to be trained again, its rungs are its own; what goes wrong with it, the heir will tell."""
        if recipe.parent is not None:
            self.recipe = recipe.parent
            self._guarded(recipe.parent, partial(self.pipeline.prefix, recipe.parent))
            self.recipe = recipe

    def _on_rung(self, rung: Rung) -> None:
        """Report the rung, and end a training that cannot reach the front any more.

        Raises:
            StoppedEarlyError: the metric is below the job's floor for this rung.
        """
        self.report(RungReached(self.recipe, rung))
        floor = self.job.floor(self.recipe, rung)
        if rung.metric < floor:
            raise StoppedEarlyError(
                f"stopped after epoch {rung.epoch} of {rung.epochs}: at its cost the front needs {floor:.4g} by then, "
                f"got {rung.metric:.4g}"
            )

    def _measure_one(self, recipe: Recipe) -> None:
        self.report(RecipeMeasured(recipe, self.pipeline.measure(recipe)))

    def finalize(self) -> None:
        """Export, re-measure on the locked test split, verify in a fresh process; one recipe after the other."""
        for recipe, trial in zip(self.job.recipes, self.job.trials, strict=True):
            self._begin(recipe)
            if failure := self._guarded(recipe, partial(self._finalize_one, recipe, trial)):
                self.report(failure)
            gc.collect()

    def _finalize_one(self, recipe: Recipe, trial: int) -> None:
        from autocut.deploy.finalize import Order, finalize, measure_untouched

        job = self.job
        if job.reference is None:
            raise RuntimeError("a point was finalized before the untouched model was measured")
        if recipe == UNTOUCHED:
            self.report(RecipeFinalized(recipe, measure_untouched(self.pipeline), None, None, None))
            return
        to = Path(self.setting.folder) / "bundles" / f"trial-{trial:04d}"
        order = Order(to, trial, self.setting.price, job.reference, job.search_seconds, self.setting.command, job.deadline)
        done = finalize(self.pipeline, recipe, order)
        self.report(RecipeFinalized(recipe, done.measurement, str(done.folder), done.digest, done.refusal))

    def _begin(self, recipe: Recipe) -> None:
        """From here on, should the process die, it has died of `recipe`; a compiler that hangs is killed when patience ends."""
        self.recipe = recipe
        _kill_in(min(self.job.patience_s, self.job.deadline - time.time() + _KILL_AFTER_S))
        self.report(RecipeStarted(recipe))

    def _guarded(self, recipe: Recipe, action: Callable[[], object]) -> RecipeFailed | None:
        try:
            action()
        except DeadlineError as error:
            return RecipeFailed(recipe, "interrupted", error.message)
        except StoppedEarlyError as error:
            return RecipeFailed(recipe, "stopped", error.message)
        except (InfeasibleRecipeError, MissingDependencyError) as error:
            return RecipeFailed(recipe, "infeasible", error.message)
        except TrialError as error:
            return RecipeFailed(recipe, "failed", f"{type(error).__name__}: {error.message}")
        except (BundleError, VerificationError) as error:
            return RecipeFailed(recipe, "failed", error.message)
        except MemoryError:
            return RecipeFailed(recipe, "failed", OutOfMemoryError("the worker process ran out of memory").message)
        except InputError:
            raise
        except Exception as error:
            # The model is the user's and the libraries are young: what nobody expected ends one trial, told as a bug, not a night.
            return RecipeFailed(recipe, "bug", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        return None


def _require_same_machine(job: Job) -> None:
    """Refuse to divide the reference time of one machine by the speed-up of another.

    Raises:
        StudyError: the untouched model was timed on another kind of machine.
    """
    from autocut.measure.machine import machine_fingerprint

    if job.reference is not None and job.reference.machine != machine_fingerprint():
        raise StudyError(
            f"a study's numbers must come from one kind of machine, {job.reference.machine}, got {machine_fingerprint()}",
            "search there, or begin a study of this machine in another folder: --out",
        )


def _keep_libraries_quiet() -> None:
    """Keep other libraries' advice off the user's screen; their errors still come back as exceptions."""
    warnings.filterwarnings("ignore")
    for name in ("torch", "torchao", "onnxscript", "onnx_ir", "torch.onnx", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _kill_in(seconds: float) -> None:
    faulthandler.dump_traceback_later(max(0.1, seconds), exit=True, file=_devnull())


@cache
def _devnull() -> int:
    return os.open(os.devnull, os.O_WRONLY)  # kept until the process ends, as faulthandler needs it
