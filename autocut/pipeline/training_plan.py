"""How long the untouched model can be trained, decided before its training begins.

The learning rate comes down to zero along a cosine over all samples. A training that the clock cuts off ends at a high learning
rate, and its model is worse than that of a shorter training that was planned so. So a few batches are timed first, and the training
gets the most of the task's epochs that fit its share of the budget. The epochs are part of the stage's key: a study keeps them, and
a new study with a longer budget trains anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from autocut.budget import TRAINING_SHARE, budget_for_training, format_duration
from autocut.errors import InputError
from autocut.measure.cores import Loan
from autocut.pipeline.model_stages import untouched_key
from autocut.pipeline.stage_runner import StageRunner
from autocut.stages.train import epochs_in, planned_sizes, sample_seconds
from autocut.task.splits import length


@dataclass(frozen=True)
class TrainingPlan:
    """Epochs that fit and their seconds; `asked_s` are the seconds of all the epochs of the task."""

    epochs: int
    seconds: float
    asked_s: float


def plan_untouched(runner: StageRunner, left_s: float) -> TrainingPlan | None:
    """Decide for how many epochs the untouched model is trained when `left_s` seconds are left.

    A training that was interrupted goes on where what is left of it fits.

    Returns:
        The plan; None where nothing is to be decided: the task brings weights, or the model is trained already.

    Raises:
        InputError: not even one epoch fits.
        TrialError: the model cannot be trained.
    """
    context = runner.context
    task = context.task
    if task.is_pretrained or context.untouched_epochs is not None or runner.cache.find(untouched_key(runner, task.epochs)):
        return None
    with runner.working():
        model, samples = task.build_model(), length(task.train_data)
    with runner.training() as device:
        loan = Loan(context.quiet.folder) if device.is_cpu else None
        pace = sample_seconds(model, task, loan=loan, gate=runner.working, stop=context.stop, device=device)

    def seconds(epochs: int) -> float:
        key = untouched_key(runner, epochs)
        if epochs < task.epochs and runner.cache.find(key):
            return 0.0
        sizes = planned_sizes({"train.epochs": epochs}, samples, task.batch_size)
        return pace * sum(sizes[epochs_in(runner.cache.checkpoint(key)) :])

    asked_s = seconds(task.epochs)
    for epochs in range(task.epochs, 0, -1):
        if (needed_s := seconds(epochs)) <= TRAINING_SHARE * left_s:
            return TrainingPlan(epochs, needed_s, asked_s)
    raise InputError(
        f"one epoch of the untouched model must fit in {TRAINING_SHARE:.0%} of the time left, "
        f"{format_duration(TRAINING_SHARE * left_s)}, got {format_duration(seconds(1))}",
        f"--budget {budget_for_training(seconds(1))} has room for one epoch, --budget {budget_for_training(asked_s)} for all "
        f"{task.epochs}; or bring trained weights: Task(pretrained=True)",
    )
