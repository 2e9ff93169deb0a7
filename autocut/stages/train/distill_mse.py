"""Squared differences: between numbers, as in a regression, and between logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autocut.stages.train.registries import distillations
from autocut.task.kinds import Meaning


@distillations.register("mse", meaning=Meaning.NUMBERS)
def distill_mse(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ARG001  (numbers have none)
    """Mean squared difference between the numbers of student and teacher.

    References:
        Ba and Caruana 2014, https://arxiv.org/abs/1312.6184 (there on logits)
    """
    return functional.mse_loss(student, teacher)


@distillations.register("mse_logits", classes=2)
def distill_mse_logits(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:  # noqa: ARG001
    """Mean squared difference of the logits: the limit of `kl` at a high temperature, and no temperature to choose.

    Unlike that limit it also sees a common shift of all logits, which changes no answer.

    References:
        Kim et al. 2021, https://arxiv.org/abs/2105.08919; Hinton et al. 2015, section 2.1
    """
    return functional.mse_loss(student_logits, teacher_logits)
