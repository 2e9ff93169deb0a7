"""A distillation loss for outputs that are numbers, as in a regression."""

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
