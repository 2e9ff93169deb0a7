"""A distillation loss for labels that do not exclude each other: a softmax over them would not see a common shift of the logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autocut.stages.train.registries import distillations
from autocut.task.kinds import Meaning


@distillations.register("kl_sigmoid", meaning=Meaning.LABELS)
def distill_kl_sigmoid(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL divergence between the softened probabilities of each label, a sigmoid each, times T squared.

    The mean is taken over examples and labels, as in the usual binary cross entropy, so alpha means the same.

    References:
        Yang et al. 2023, Multi-Label Knowledge Distillation, https://arxiv.org/abs/2308.06453
    """
    student, teacher = student_logits / temperature, teacher_logits / temperature
    wanted = teacher.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(student, wanted)
    entropy = functional.binary_cross_entropy_with_logits(teacher, wanted)
    return (cross_entropy - entropy) * temperature**2
