"""Regression: one number, or several, for each example."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from autocut.errors import Fault
from autocut.task.kinds import Kind, Meaning, kinds


@kinds.register("regression")
def regression() -> Kind:
    """Outputs and targets (n,) or (n, d): mean squared error, and R2 from scores that are minus the squared errors."""
    return Kind(
        name="r2",
        loss=squared_loss,
        scores=minus_squared_error,
        summarize=r2,
        is_binary=False,
        output_fault=shape_fault,
        target_fault=finite_fault,
        chance=lambda _: 0.0,  # the mean of the targets has R2 = 0 by definition
        meaning=Meaning.NUMBERS,
    )


def squared_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error. Outputs (n, 1) fit targets (n,)."""
    return functional.mse_loss(outputs.reshape(targets.shape), targets.to(outputs.dtype))


def r2(scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """Coefficient of determination from scores that are minus the squared errors.

    Constant targets have no variance to explain: 1 where there is no error, else 0, as in scikit-learn.
    """
    error = -float(np.sum(scores))
    spread = np.square(targets - targets.mean(axis=0))
    total = float(spread.reshape(len(spread), -1).mean(axis=1).sum())
    if total == 0.0:
        return 1.0 if error == 0.0 else 0.0
    return 1.0 - error / total


def minus_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Minus the squared error of each example, shape (n,), as a mean over its numbers."""
    return -(outputs.reshape(targets.shape) - targets).square().reshape(len(targets), -1).mean(1)


def shape_fault(outputs: Tensor, targets: Tensor, kind: str = "regression") -> Fault | None:
    """Return a fault where outputs do not have the shape of the targets; a last dimension of 1 may be missing in either."""
    if len(outputs) == len(targets) and _squeezed(outputs) == _squeezed(targets):
        return None
    return Fault(
        f"outputs must have the shape of the targets {tuple(targets.shape)} for kind '{kind}', got {tuple(outputs.shape)}",
        "make both (n,) or both (n, d), or set kind=",
    )


def _squeezed(tensor: Tensor) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    return shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape


def finite_fault(outputs: Tensor, targets: Tensor) -> Fault | None:  # noqa: ARG001  (the signature of every check)
    """Return a fault where a target is NaN or infinite."""
    if targets.isfinite().all():
        return None
    return Fault("targets must be finite, got NaN or infinity", "drop or impute these examples")
