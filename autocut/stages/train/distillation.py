"""Distillation losses on logits: the student follows the teacher's whole output, not only the label.

Logits have shape (n, classes) or (n, length, vocabulary). The last dimension is the distribution, and the mean is taken over all
the others. Other outputs (one logit for two classes, a map of labels) would give a number too, but a meaningless one:
`check_distillation` refuses them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.stages.methods import fitting_kinds
from autocut.stages.train.registries import distillations
from autocut.task.kinds import kinds


def check_distillation(loss_name: str, kind_name: str, outputs: Tensor) -> None:
    """Refuse a distillation that cannot mean anything for a model's `outputs`.

    Args:
        loss_name: ``distill.loss``.
        kind_name: The task's kind. Whether the task has a loss of its own does not matter: distilling needs logits either way.
        outputs: Of any batch.

    Raises:
        InfeasibleRecipeError: the loss does not fit tasks of this kind, or needs logits, but the outputs are not logits.
        UnknownNameError: no such loss.
    """
    loss = distillations.method(loss_name)
    if kind_name not in (fitting := fitting_kinds(loss)):
        raise InfeasibleRecipeError(f"distill.loss {loss_name!r} fits {' and '.join(fitting)} tasks only, got {kind_name!r}")
    fewest, shape = loss.options.classes, kinds[kind_name]().logits_shape
    if fewest is not None and shape is not None and (outputs.dim() != len(shape) or outputs.shape[-1] < fewest):
        raise InfeasibleRecipeError(
            f"distill.loss {loss_name!r} needs outputs of shape ({', '.join(shape)}) with at least {fewest} classes, "
            f"got {tuple(outputs.shape)}"
        )


@distillations.register("none")
def distill_none(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:  # noqa: ARG001
    """Train on the task's own loss alone."""
    return student_logits.new_zeros(())


@distillations.register("kl", version=2, classes=2)
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


@distillations.register("kl_zscore", version=2, classes=3)
def distill_kl_zscore(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`kl` on logits standardized per example, so that the student need not match the teacher's scale.

    Two standardized logits are always the same two numbers, from which nothing can be learned: it takes three classes.

    References:
        Sun et al. 2024, https://arxiv.org/abs/2403.01427
    """
    return distill_kl(_standardize(student_logits), _standardize(teacher_logits), temperature)


def _standardize(logits: Tensor) -> Tensor:
    deviation = logits.std(dim=-1, correction=1, keepdim=True)
    return (logits - logits.mean(dim=-1, keepdim=True)) / torch.clamp(deviation, min=1e-7)
