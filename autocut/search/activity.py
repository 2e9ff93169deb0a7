"""What the workers do now, in one phrase each, and how long it will still take."""

from __future__ import annotations

from autocut.budget import format_duration
from autocut.search.jobs import JobKind, Purpose
from autocut.search.planner import Planner
from autocut.search.state import RunningJob, SearchState
from autocut.search.timesheet import Step, Timesheet

_PHASES = {
    Purpose.PRICING: "costs of untrained structures",
    Purpose.PREPARATION: "the first lowering",
    Purpose.QUICK_LOWERINGS: "lowerings",
    Purpose.SLOW_LOWERING: "slow lowerings",
    Purpose.TRAINED_BASELINE: "baselines",
    Purpose.USER_RECIPE: "your recipes",
    Purpose.ANCHOR: "anchors",
    Purpose.PROPOSAL: "proposals",
    Purpose.FINALIZATION: "finalize",
}
_WORDS = {
    "scratch": "building",
    "student": "building",
    "prune": "pruning",
    "train": "training",
    "convert": "exporting",
    "accuracy": "scoring",
    "cost": "timing",
    "teacher": "computing the teacher's outputs",
    "difficulty": "ordering the examples",
}
"""Names of stages as a person would say them. A step without a stage has such a name already."""


def doing(state: SearchState, timesheet: Timesheet, now: float) -> str:
    """Say what every worker with a job does, and when that will end, or how long it has taken where nothing is known.

    `now` is a reading of the budget's clock.
    """
    told = [_job(running, timesheet.step(running.job), state.planner, now) for running in state.running.values()]
    return "; ".join(told) or "waiting for a worker"


def _job(running: RunningJob, step: Step | None, planner: Planner, now: float) -> str:
    phase = _PHASES.get(running.purpose, running.purpose.name.lower().replace("_", " "))
    verb = _verb(step)
    what = f"{verb} the untouched model" if running.job.kind is JobKind.BASELINE else f"{_subject(running)}, {verb}"
    if step is not None and step.rung is not None:
        what += f", epoch {min(step.rung.epoch + 1, step.rung.epochs)} of {step.rung.epochs}"
    left_s = _left_s(running, step, planner, now)
    if left_s is None or left_s <= 0:
        since = step.since if step else running.recipe_started or running.started
        return f"{phase}: {what}, {format_duration(now - since)} so far"
    return f"{phase}: {what}, about {format_duration(left_s)} left"


def _subject(running: RunningJob) -> str:
    """Name the recipe that the worker works on; a point that is finalized has the number of its trial."""
    recipe, job = running.recipe or running.job.recipes[0], running.job
    if job.kind is JobKind.FINALIZE and job.trials and recipe in job.recipes:
        return f"trial {job.trials[job.recipes.index(recipe)]}"
    return recipe.describe()


def _verb(step: Step | None) -> str:
    if step is None:
        return "preparing"
    stage, method = step.what.stage, step.what.method
    if stage == "baseline":
        return "training" if method == "train" else "building"
    if stage == "quantize":
        return f"quantizing to {method}"
    if stage == "compile":
        return f"compiling {method}"
    return _WORDS.get(stage, stage)


def _left_s(running: RunningJob, step: Step | None, planner: Planner, now: float) -> float | None:
    """Predict the seconds until the end of the step, or of the whole finalization; None where nothing like it was seen."""
    if running.job.kind is JobKind.FINALIZE:
        whole_s = planner.known_finalize_s()
        return None if whole_s is None or running.recipe_started is None else running.recipe_started + whole_s - now
    if step is None:
        return None
    if step.rung is not None and step.rungs:
        each_s = (step.rung_at - step.since) / step.rungs
        return step.rung_at + each_s * (step.rung.epochs - step.rung.epoch) - now
    if step.ends is not None:
        return step.ends - now
    if step.what.stage == "train" and planner.knows_training and running.recipe is not None:
        return step.since + planner.train_s(running.recipe.last_trained) - now
    whole_s = planner.stage_s(step.what.stage, step.what.method)
    return None if whole_s is None else step.since + whole_s - now
