"""MAE: a regression judged by its mean absolute error, in the unit of the targets. Outliers weigh less than in RMSE and R2."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional

from autocut.task.kinds import Kind, Meaning, kinds, mean_score
from autocut.task.kinds.regression import finite_fault, shape_fault


@kinds.register("mae")
def mae() -> Kind:
    """Outputs and targets (n,) or (n, d): mean absolute error, and minus the same as the metric, so that higher is better."""
    return Kind(
        name="negative_mae",
        loss=lambda outputs, targets: functional.l1_loss(outputs.reshape(targets.shape), targets.to(outputs.dtype)),
        scores=_minus_absolute_error,
        summarize=mean_score,
        is_binary=False,
        output_fault=partial(shape_fault, kind="mae"),
        target_fault=finite_fault,
        chance=_error_of_median,
        meaning=Meaning.NUMBERS,
        reads_targets=False,
        is_error=True,
    )


def _minus_absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return -(outputs.reshape(targets.shape) - targets).abs().reshape(len(targets), -1).mean(1)


def _error_of_median(targets: Tensor) -> float:
    """The best constant answer is the median of the targets, each number of an example by itself."""
    return -float((targets.double() - targets.double().median(0).values).abs().mean())
