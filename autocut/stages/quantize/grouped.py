"""Round weights to four bits in groups, so that the outputs of the layer change little.

Rounding each weight to the nearest number changes the outputs of a small model too much: perplexity of stories260K rose by 7% to
12%. Here columns are rounded one after the other, and those that are left make up for the error, as far as the inputs of the
layer allow: where two inputs rise and fall together, the weight of the second can take what that of the first has lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = 15
"""The largest of the four-bit numbers, which begin with zero."""
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of a group's range that are tried: cutting off the largest weights may round all others better."""
_DAMPING = 0.01
"""Part of the mean squared input that is added to each input's own: what so few examples say of them is not exact."""

Grid = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(lowest, highest) weight of each group, at most and at least zero -> the scale and the weight of number zero that are stored."""


@dataclass(frozen=True)
class Grouped:
    """Weights of shape (rows, columns), in groups. Zeros fill up the last group.

    `numbers`, shape (rows, groups, group), are integers from 0 to LEVELS as floats. A weight is `numbers * scale + zero`, where
    `scale` and `zero` have the shape (rows, groups, 1).
    """

    numbers: Tensor
    scale: Tensor
    zero: Tensor

    def weights(self, columns: int) -> Tensor:
        """The weights as floats, shape (rows, columns)."""
        return (self.numbers * self.scale + self.zero).flatten(1)[:, :columns]


def round_in_groups(weight: Tensor, moments: Tensor, grid: Grid, group: int) -> Grouped:
    """Round `weight` (rows, columns) so that the layer's outputs change little.

    Args:
        weight: Weights of a linear layer, float32.
        moments: Sum of the products of each two inputs over some examples, shape (columns, columns).
        grid: Finds the numbers that the runtime stores for a range of weights.
        group: So many weights of a row share a scale.

    References:
        Frantar et al. 2022, GPTQ, https://arxiv.org/abs/2210.17323
    """
    missing = -weight.shape[1] % group
    left = functional.pad(weight, (0, missing)).clone()
    moments = functional.pad(moments.double(), (0, missing, 0, missing))
    moments.diagonal().add_(_DAMPING * float(moments.diagonal().mean()) or 1.0)
    follow = _compensation(moments).to(left.dtype)
    found = []
    for start in range(0, left.shape[1], group):
        inside, behind = slice(start, start + group), slice(start + group, None)
        rounded, errors = _round_group(left[:, inside], moments.diagonal()[inside], follow[inside, inside], grid)
        left[:, behind] -= errors @ follow[inside, behind]
        found.append(rounded)
    return Grouped(*(torch.stack(parts, dim=1) for parts in zip(*found, strict=True)))


def _compensation(moments: Tensor) -> Tensor:
    """Return what an error of one in the column of each row asks of the columns behind it: upper triangular, ones on the diagonal.

    The upper triangular factor of the inverse of `moments`, by a factorization of `moments` from the last column to the first one.
    """
    factor = torch.linalg.cholesky(moments.flip(0, 1)).flip(0, 1)
    inverse: Tensor = torch.linalg.solve_triangular(factor, torch.eye(len(factor), dtype=factor.dtype), upper=True)
    return inverse / inverse.diagonal().unsqueeze(1)


def _round_group(weights: Tensor, importance: Tensor, follow: Tensor, grid: Grid) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Round a group of each row, shape (rows, group), and change `weights`. Return it with its errors for the columns behind."""
    scale, zero = _best_range(weights, importance.to(weights.dtype), grid)
    numbers, errors = torch.empty_like(weights), torch.empty_like(weights)
    for index in range(weights.shape[1]):
        column = slice(index, index + 1)
        numbers[:, column] = _nearest(weights[:, column], scale, zero)
        errors[:, column] = weights[:, column] - (numbers[:, column] * scale + zero)
        weights[:, index + 1 :] -= errors[:, column] * follow[index, index + 1 :]
    return (numbers, scale, zero), errors


def _best_range(weights: Tensor, importance: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return scale and zero of each row, both of shape (rows, 1), with the smallest error by the sizes of the inputs."""
    low, high = weights.amin(1, keepdim=True).clamp(max=0), weights.amax(1, keepdim=True).clamp(min=0)
    grids = [grid(low * share, high * share) for share in _SHARES]
    errors = [(_nearest(weights, *one) * one[0] + one[1] - weights).square() @ importance for one in grids]
    best = torch.stack(errors).argmin(0)[None, :, None]
    scale, zero = (torch.stack(parts).take_along_dim(best, 0)[0] for parts in zip(*grids, strict=True))
    return scale, zero


def _nearest(weights: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return ((weights - zero) / scale).round().clamp(0, LEVELS)
