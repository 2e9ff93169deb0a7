"""What is looked at before the first step: a training that cannot mean anything must not cost anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from autocut.errors import InfeasibleRecipeError, quoted
from autocut.recipe import LABEL_SMOOTHING, Value
from autocut.stages.train.distillation import check_distillation, meaning_of, sample_answers
from autocut.stages.train.fake_quantization import check_fake_quantization
from autocut.stages.train.features import FeaturePairs, feature_pairs
from autocut.stages.train.input_growth import InputGrowth, input_growth
from autocut.stages.train.plan import is_changed
from autocut.stages.train.teacher import Gate, Teacher
from autocut.task.kinds import Meaning, kinds
from autocut.task.task import Task


@dataclass(frozen=True)
class CheckedTraining:
    """What the check has found out for the training: the features that it compares, and how its inputs grow."""

    features: FeaturePairs = field(default_factory=FeaturePairs)
    growth: InputGrowth = field(default_factory=InputGrowth)


def check_training(
    settings: Mapping[str, Value], model: nn.Module, task: Task, teacher: Teacher | None, sizes: Sequence[int], gate: Gate
) -> CheckedTraining:
    """Look at what `model` answers to a few training examples, where `settings` ask something of it.

    Raises:
        InfeasibleRecipeError: a distillation, label smoothing or smaller inputs do not fit the task or the model, or there is no
            weight to round.
        ValueError: a distillation loss has no teacher.
    """
    if is_changed(settings, "distill.loss"):
        loss = str(settings["distill.loss"])
        if teacher is None:
            raise ValueError(f"distill.loss {quoted(loss)} needs a teacher")
        with gate():
            check_distillation(loss, task.kind, *sample_answers(model, task))
    if settings.get(LABEL_SMOOTHING):
        with gate():
            meaning = meaning_of(kinds[task.kind](), *sample_answers(model, task))
        if meaning is not Meaning.CLASSES:
            raise InfeasibleRecipeError(
                f"{LABEL_SMOOTHING} needs outputs that are {Meaning.CLASSES.value}, got outputs that are {meaning.value}"
            )
    features = feature_pairs(settings, model, task, teacher, gate)
    check_fake_quantization(settings, model, task, gate)
    models = (model, teacher.model) if features.names and teacher is not None else (model,)
    return CheckedTraining(features, input_growth(settings, models, task, sizes, gate))
