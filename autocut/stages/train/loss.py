"""What a step minimizes: the task's loss, mixed with a distillation loss where the recipe has one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autocut.recipe import Value
from autocut.stages.train.plan import is_changed
from autocut.stages.train.registries import distillations
from autocut.task.kinds import Kind


class TrainingLoss:
    """``(1 - alpha) * task loss + alpha * distillation loss``, as `settings` say, for a task of `kind`."""

    def __init__(self, kind: Kind, settings: Mapping[str, Value]) -> None:
        self._kind = kind
        self._distill = distillations[str(settings["distill.loss"])] if is_changed(settings, "distill.loss") else None
        self._alpha, self._temperature = float(settings["distill.alpha"]), float(settings["distill.temperature"])

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares the outputs with a teacher's."""
        return self._distill is not None

    def __call__(self, outputs: Tensor, targets: Tensor, logits: Tensor | None) -> Tensor:
        """Return the loss of a batch, a scalar; `logits` are the teacher's."""
        loss = self._kind.loss(outputs, targets)
        if self._distill is None or logits is None:
            return loss
        distilled = self._distill(*counted(outputs, logits, targets, self._kind), self._temperature)
        return (1 - self._alpha) * loss + self._alpha * distilled


def weighted(loss: TrainingLoss, outputs: Tensor, targets: Tensor, logits: Tensor | None, weights: Tensor) -> Tensor:
    """Return the weighted mean of the losses of the examples, whose `weights` have shape (n,) and few different values.

    The loss of the examples of each weight is asked for, because for a batch the contract of a loss is only the mean.
    """
    parts = []
    for weight in weights.unique().tolist():
        rows = (weights == weight).nonzero().squeeze(1).to(targets.device)
        taught = None if logits is None else logits[rows]
        parts.append(weight * len(rows) / len(weights) * loss(outputs[rows], targets[rows], taught))
    return torch.stack(parts).sum()


def counted(student: Tensor, teacher: Tensor, targets: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """Make classes the last dimension, and leave out the positions that the task's loss ignores, such as padding."""
    student, teacher = student.movedim(kind.class_dim, -1), teacher.movedim(kind.class_dim, -1)
    if kind.counted is None:
        return student, teacher
    counts = kind.counted(targets)
    return student[counts], teacher[counts]
