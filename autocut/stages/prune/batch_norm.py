"""Repair without training: the statistics of batch normalization, taken again after a cut."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autocut.task.batches import Inputs, batch_length, call
from autocut.task.task import evaluation_mode


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Sequence[tuple[Inputs, Tensor]]) -> None:
    """Replace the running mean and variance of every batch normalization by those over `batches`, in place.

    The channels that are left get other inputs than before the cut, so the old statistics are wrong for them. Batches of one
    example have no variance and do not take part.

    References:
        Li et al. 2020, EagleEye, https://arxiv.org/abs/2007.02491
    """
    usable = [inputs for inputs, _ in batches if batch_length(inputs) > 1]
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not layers or not usable:
        return
    momenta = [layer.momentum for layer in layers]
    with evaluation_mode(model):
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
            layer.train()
        for inputs in usable:
            call(model, inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
