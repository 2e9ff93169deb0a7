"""Decoupled distillation: what the teacher says of the right class, and of all others, are learned apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autocut.stages.train.registries import distillations

_OTHERS = 2.0
"""Weight of the part about the other classes. The paper has 0.5 on ImageNet and up to 8 on CIFAR-100."""


@distillations.register("dkd", classes=3, needs_targets=True)
def distill_dkd(student_logits: Tensor, teacher_logits: Tensor, temperature: float, targets: Tensor) -> Tensor:
    """KL divergence of (right class, any other), plus twice that among the other classes, both times T squared.

    In `kl`, the second part counts the less the surer the teacher is of the right class. Two classes have no second part: it takes
    three.

    Args:
        student_logits: Shape (..., classes).
        teacher_logits: The same shape.
        temperature: Divides all logits.
        targets: Right classes, shape (...), or probabilities of the logits' shape, of which the largest counts. What is no class,
            such as a number that the task's own loss ignores, is left out.

    References:
        Zhao et al. 2022, https://arxiv.org/abs/2203.08679
    """
    classes = student_logits.shape[-1]
    right = (targets.argmax(-1) if targets.shape == student_logits.shape else targets).reshape(-1).long()
    counts = (right >= 0) & (right < classes)
    is_right = functional.one_hot(right[counts], classes).bool()
    (of_student, among_student), (of_teacher, among_teacher) = (
        _decoupled(logits.reshape(-1, classes)[counts] / temperature, is_right) for logits in (student_logits, teacher_logits)
    )
    return temperature**2 * (_divergence(of_student, of_teacher) + _OTHERS * _divergence(among_student, among_teacher))


def _decoupled(logits: Tensor, is_right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of (right, other), shape (n, 2), and those of each other class if it is another one."""
    others = logits[~is_right].reshape(len(logits), -1)
    both = torch.stack([logits[is_right], others.logsumexp(-1)], dim=-1)
    return both.log_softmax(-1), others.log_softmax(-1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.kl_div(student, teacher, reduction="sum", log_target=True) / max(1, len(student))
