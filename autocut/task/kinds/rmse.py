"""RMSE: a regression judged by its root mean squared error, in the unit of the targets."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autocut.task.kinds import Kind, Meaning, kinds
from autocut.task.kinds.regression import finite_fault, minus_squared_error, shape_fault, squared_loss


@kinds.register("rmse")
def rmse() -> Kind:
    """Outputs and targets (n,) or (n, d): mean squared error, and minus its root over a split, so that higher is better."""
    return Kind(
        name="negative_rmse",
        loss=squared_loss,
        scores=minus_squared_error,
        summarize=negative_rmse,
        is_binary=False,
        output_fault=partial(shape_fault, kind="rmse"),
        target_fault=finite_fault,
        chance=_error_of_mean,
        meaning=Meaning.NUMBERS,
        reads_targets=False,
        is_error=True,
    )


def negative_rmse(scores: NDArray[Any], targets: NDArray[Any]) -> float:  # noqa: ARG001  (the signature of every summary)
    """Minus the root mean squared error, from scores that are minus the squared errors."""
    return -float(np.sqrt(-np.mean(scores)))


def _error_of_mean(targets: Tensor) -> float:
    """The best constant answer is the mean of the targets, each number of an example by itself."""
    return -float((targets.double() - targets.double().mean(0)).square().mean().sqrt())
