"""What a step minimizes: the task's loss, mixed with a distillation loss where the recipe has one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autocut.recipe import DECAY, LABEL_SMOOTHING, LEFT_OUT, Value
from autocut.stages.train.plan import is_changed
from autocut.stages.train.registries import distillations
from autocut.task.kinds import Kind


class TrainingLoss:
    """``(1 - alpha) * task loss + alpha * distillation loss``, as `settings` say, for a task of `kind`.

    Where ``distill.decay`` is "linear", alpha falls along a line to 0 at the end of the training: the teacher says what the labels
    do not, but it is not always right.

    With ``train.label_smoothing``, that share of the task loss is the cross entropy to equal probabilities for all classes.

    References:
        Szegedy et al. 2016 (label smoothing), https://arxiv.org/abs/1512.00567
    """

    def __init__(self, kind: Kind, settings: Mapping[str, Value]) -> None:
        self._kind = kind
        name = str(settings["distill.loss"])
        self._distill = distillations[name] if is_changed(settings, "distill.loss") else None
        self._needs_targets = distillations.method(name).options.needs_targets
        self._alpha, self._temperature = float(settings["distill.alpha"]), float(settings["distill.temperature"])
        self._smoothing = float(settings.get(LABEL_SMOOTHING, 0))
        self._decays = settings.get(DECAY, LEFT_OUT[DECAY]) != LEFT_OUT[DECAY]

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares the outputs with a teacher's."""
        return self._distill is not None

    def __call__(self, outputs: Tensor, targets: Tensor, logits: Tensor | None, progress: float = 0.0) -> Tensor:
        """Return the loss of a batch, a scalar; `logits` are the teacher's, `progress` is how much of the training is done."""
        loss = self._kind.loss(outputs, targets)
        if self._smoothing:
            loss = (1 - self._smoothing) * loss + self._smoothing * _uniform(outputs, targets, self._kind)
        if self._distill is None or logits is None:
            return loss
        alpha = self._alpha * (1 - progress) if self._decays else self._alpha
        student, teacher, right = counted(outputs, logits, targets, self._kind)
        more = (right,) if self._needs_targets else ()
        return (1 - alpha) * loss + alpha * self._distill(student, teacher, self._temperature, *more)


def weighted(
    loss: TrainingLoss, outputs: Tensor, targets: Tensor, logits: Tensor | None, progress: float, weights: Tensor | None
) -> Tensor:
    """Return the weighted mean of the losses of the examples, whose `weights` have shape (n,) and few different values.

    The loss of the examples of each weight is asked for, because for a batch the contract of a loss is only the mean.
    """
    if weights is None:
        return loss(outputs, targets, logits, progress)
    parts = []
    for weight in sorted(set(weights.tolist())):
        rows = (weights == weight).nonzero().squeeze(1).to(targets.device)
        taught = None if logits is None else logits[rows]
        parts.append(weight * len(rows) / len(weights) * loss(outputs[rows], targets[rows], taught, progress))
    return torch.stack(parts).sum()


def _uniform(outputs: Tensor, targets: Tensor, kind: Kind) -> Tensor:
    """Cross entropy of the outputs that count to equal probabilities for all classes."""
    logits, _, _ = counted(outputs, outputs, targets, kind)
    return -logits.log_softmax(-1).mean()


def counted(student: Tensor, teacher: Tensor, targets: Tensor, kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    """Make classes the last dimension, and leave out the positions that the task's loss ignores, such as padding."""
    student, teacher = student.movedim(kind.class_dim, -1), teacher.movedim(kind.class_dim, -1)
    if kind.counted is None:
        return student, teacher, targets
    counts = kind.counted(targets)
    return student[counts], teacher[counts], targets[counts]
