"""Distillation losses on logits: the student follows the teacher's whole output, not only the label.

Logits have shape (n, classes) or (n, length, vocabulary); the last dimension is the distribution and the mean is taken over all the
others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autocut.stages.train.registries import distillations

KINDS = ("classification", "language_modeling")


@distillations.register("none", kinds=("classification", "language_modeling", "regression"))
def distill_none(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:  # noqa: ARG001
    """Train on the task's own loss alone."""
    return student_logits.new_zeros(())


@distillations.register("kl", kinds=KINDS)
def distill_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL divergence from the softened teacher to the softened student, times T squared.

    T squared keeps the size of the gradient the same at every temperature, so alpha means the same.

    References:
        Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """
    classes = student_logits.shape[-1]
    student = functional.log_softmax(student_logits.reshape(-1, classes) / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits.reshape(-1, classes) / temperature, dim=-1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


@distillations.register("kl_zscore", kinds=KINDS)
def distill_kl_zscore(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`kl` on logits standardized per example, so that the student need not match the teacher's scale.

    References:
        Sun et al. 2024, https://arxiv.org/abs/2403.01427
    """
    return distill_kl(_standardize(student_logits), _standardize(teacher_logits), temperature)


def _standardize(logits: Tensor) -> Tensor:
    deviation = logits.std(dim=-1, correction=1, keepdim=True)
    return (logits - logits.mean(dim=-1, keepdim=True)) / torch.clamp(deviation, min=1e-7)
