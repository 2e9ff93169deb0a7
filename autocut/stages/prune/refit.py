"""Repair without training: the layer that reads a cut hidden layer learns to answer as before, by least squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autocut.stages.prune.parts import Hidden
from autocut.task.batches import Inputs, call
from autocut.task.splits import spread
from autocut.task.task import evaluation_mode

_ROWS = 512
"""Of a batch so many rows count, and each position of a sequence is a row."""
_RIDGE = 0.01
"""Weight of staying as it was, relative to the mean variance of a column."""


@torch.no_grad()
def refit(pruned: nn.Module, whole: nn.Module, kept: Mapping[Hidden, Tensor], batches: Sequence[Inputs]) -> None:
    """Change the readers of `pruned`, in place, so that they answer as those of `whole` do on `batches`.

    What the removed columns add to a reader's answer is predicted from the columns that stay, by ridge regression with an
    intercept, and added to its weights. A reader without bias gets none: the regression then has no intercept.

    References:
        Kwon et al. 2022, A fast post-training pruning framework for transformers, https://arxiv.org/abs/2204.09656
    """
    if not batches:
        return
    sums = {hidden.reader: _Sums(hidden.columns(parts), whole.get_submodule(hidden.reader)) for hidden, parts in kept.items()}
    hooks = [whole.get_submodule(reader).register_forward_pre_hook(partial(_add, seen)) for reader, seen in sums.items()]
    try:
        with evaluation_mode(whole):
            for inputs in batches:
                call(whole, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    rows = {name: hidden.rows(name, parts) for hidden, parts in kept.items() for name in hidden.writers}
    for reader, seen in sums.items():
        layer = pruned.get_submodule(reader)
        change, shift = seen.regression()
        left = rows.get(reader, slice(None))  # a reader may itself write a hidden layer that was cut
        layer.get_parameter("weight").add_(change[left])
        if layer.bias is not None:
            layer.get_parameter("bias").add_(shift[left])


def _add(seen: _Sums, _: nn.Module, args: tuple[Any, ...]) -> None:
    seen.add(args[0])


class _Sums:
    """Sums over rows of what a reader reads: of the columns that stay, and of what the others add to its answer."""

    def __init__(self, columns: Tensor, reader: nn.Module) -> None:
        weight = reader.get_parameter("weight")
        self.columns, self.has_bias = columns, reader.bias is not None
        self.others = torch.ones(weight.shape[1], dtype=torch.bool).index_fill_(0, columns, value=False).nonzero().flatten()
        self.weight = weight[:, self.others]
        width = len(columns) + len(weight)
        self.count, self.total = 0, torch.zeros(width, dtype=weight.dtype)
        self.products = torch.zeros(len(columns), width, dtype=weight.dtype)

    def add(self, read: Tensor) -> None:
        """Take in some rows of `read`, shape (..., columns)."""
        rows = read.reshape(-1, read.shape[-1])
        rows = rows[spread(len(rows), _ROWS)]
        stay = rows[:, self.columns]
        both = torch.cat([stay, rows[:, self.others] @ self.weight.T], dim=1)
        self.count += len(rows)
        self.total += both.sum(0)
        self.products += stay.T @ both

    def regression(self) -> tuple[Tensor, Tensor]:
        """Return what to add to the reader's weight, shape (out, columns that stay), and to its bias."""
        width = len(self.columns)
        mean = self.total / self.count if self.has_bias else torch.zeros_like(self.total)
        products = (self.products / self.count - torch.outer(mean[:width], mean)).double()
        covariance, with_others = products[:, :width], products[:, width:]
        ridge = _RIDGE * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(width, dtype=torch.double)
        change = torch.linalg.solve(covariance + ridge, with_others).T.to(mean)
        return change, mean[width:] - change @ mean[:width]
