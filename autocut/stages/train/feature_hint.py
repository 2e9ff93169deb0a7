"""Features that a student copies."""

from __future__ import annotations

import torch
from torch import Tensor

from autocut.stages.train.registries import feature_losses


@feature_losses.register("hint", adapts=True)
def compare_hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of the student's features, through a learned linear map where their width differs.

    It is a share of the teacher's mean square: 1 is as good as features that are all zero. FitNets trains the layers up to the hint
    first, and without labels; here the hint is learned beside them.

    Args:
        student: Shape (n, ...), of the teacher's width.
        teacher: Shape (n, ...), the same examples.

    References:
        Romero et al. 2015 (FitNets), https://arxiv.org/abs/1412.6550
    """
    scale = teacher.square().mean().clamp(min=torch.finfo(teacher.dtype).tiny)
    return (student - teacher).square().mean() / scale
