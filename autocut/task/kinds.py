"""The kinds of task: what a loss, a score and a metric are where the user does not say.

| kind | outputs | targets | loss | score of one example | metric |
|---|---|---|---|---|---|
| classification | (n, classes) | (n,) class ids | cross entropy | 1 right, 0 wrong | accuracy |
| regression | (n,) or (n, d) | the same | mean squared error | minus the squared error | R2 |
| language_modeling | (n, t, vocabulary) | (n, t) ids, -100 ignored | cross entropy | share of right tokens | token_accuracy |

The metric of language modeling is the mean over sequences, so a short sequence weighs as much as a long one; ``targets[:, i]``
is what ``outputs[:, i]`` predicts. Scores are per example and higher is better, so that two models are compared example by
example. A new kind is one new entry in `kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from autocut.errors import Fault
from autocut.task.batches import Inputs, tensors

IGNORED = -100
"""Target value that no loss and no score looks at, as in `torch.nn.functional.cross_entropy`."""

Scalar = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[NDArray[Any], NDArray[Any]], float]
Check = Callable[[Tensor, Tensor], Fault | None]


@dataclass(frozen=True)
class Kind:
    """How outputs are judged.

    `loss` gives a scalar, `scores` one number per example of shape (n,), `summarize` turns the scores and the targets of a
    split into the metric. `is_binary`: scores are 0 or 1. The rest serves `autocut check`: `output_fault` looks at one batch's
    outputs and targets, `target_fault` at one batch's outputs and any number of targets, `chance` is the metric of the best
    constant answer to these targets (None where that is not known).
    """

    name: str
    loss: Scalar
    scores: Scalar
    summarize: Summary
    is_binary: bool
    output_fault: Check
    target_fault: Check
    chance: Callable[[Tensor], float] | None = None


def mean_score(scores: NDArray[Any], targets: NDArray[Any]) -> float:  # noqa: ARG001  (the signature of every summary)
    """Mean of the scores."""
    return float(np.mean(scores))


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


def _minus_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return -(outputs.reshape(targets.shape) - targets).square().reshape(len(targets), -1).mean(1)


def _share_of_right_tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    counted = targets != IGNORED
    right = (outputs.argmax(-1) == targets) & counted
    return right.sum(1) / counted.sum(1).clamp(min=1)


def _share_of_commonest_token(targets: Tensor) -> float:
    counted = targets[targets != IGNORED].long()
    return float(torch.bincount(counted).max() / len(counted))


def _classification_output_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    if targets.dim() != 1:
        return Fault(
            f"targets must have shape (n,) for kind 'classification', got {tuple(targets.shape)}",
            "give class ids; for one class per pixel give loss= and metric= of your own",
        )
    if outputs.dim() == 2 and len(outputs) == len(targets) and outputs.shape[1] >= 2:
        return None
    return Fault(
        f"outputs must have shape ({len(targets)}, 2 or more classes) for kind 'classification', got {tuple(outputs.shape)}",
        "end the model with nn.Linear(..., classes), or set kind=",
    )


def _regression_output_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    if len(outputs) == len(targets) and _squeezed(outputs) == _squeezed(targets):
        return None
    return Fault(
        f"outputs must have the shape of the targets {tuple(targets.shape)} for kind 'regression', got {tuple(outputs.shape)}",
        "make both (n,) or both (n, d), or set kind=",
    )


def _squeezed(tensor: Tensor) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    return shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape


def _language_output_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    if outputs.dim() == 3 and outputs.shape[:2] == targets.shape:
        return None
    return Fault(
        f"outputs must have shape (n, t, vocabulary) and targets (n, t) for kind 'language_modeling', "
        f"got {tuple(outputs.shape)} and {tuple(targets.shape)}",
        "targets[:, i] is the token that outputs[:, i] predicts",
    )


def unshifted_fault(inputs: Inputs, targets: Tensor) -> Fault | None:
    """Return a fault where the targets of a language model, shape (n, t), are one of its inputs.

    Some libraries shift them inside their own loss; here a model would learn to copy. Rows of one repeated token tell nothing.
    """
    counted = targets != IGNORED
    for name, tensor in tensors(inputs).items():
        if tensor.shape != targets.shape or not (tensor[:, 1:] != tensor[:, :-1]).any():
            continue
        if counted.any() and bool((tensor[counted] == targets[counted]).all()):
            return Fault(
                f"targets must be the next tokens for kind 'language_modeling', got those of {name} themselves",
                "shift the labels by one: inputs tokens[:, :-1], targets tokens[:, 1:]",
            )
    return None


def _class_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    if targets.is_floating_point() or targets.is_complex():
        return Fault(
            f"targets must be integer class ids, got {targets.dtype}", "convert them with .long(), or set kind='regression'"
        )
    classes = outputs.shape[-1]
    values = targets[targets != IGNORED] if outputs.dim() == 3 else targets
    outside = values[(values < 0) | (values >= classes)]
    if len(outside) == 0:
        return None
    return Fault(
        f"targets must be within 0..{classes - 1} for a model with {classes} outputs, got {outside[0].item()}",
        "count classes from 0, or widen the last layer",
    )


def _constant_target_fault(outputs: Tensor, targets: Tensor) -> Fault | None:  # noqa: ARG001  (the signature of every check)
    if not targets.isfinite().all():
        return Fault("targets must be finite, got NaN or infinity", "drop or impute these examples")
    if len(targets) > 1 and bool((targets == targets[0]).all()):
        return Fault(
            f"targets must vary for kind 'regression', got {targets.flatten()[0].item()} everywhere", "R2 is not defined for them"
        )
    return None


kinds: Mapping[str, Kind] = MappingProxyType(
    {
        "classification": Kind(
            name="accuracy",
            loss=lambda outputs, targets: functional.cross_entropy(outputs, targets.long()),
            scores=lambda outputs, targets: (outputs.argmax(1) == targets).float(),
            summarize=mean_score,
            is_binary=True,
            output_fault=_classification_output_fault,
            target_fault=_class_fault,
            chance=lambda targets: float(torch.bincount(targets.long()).max() / len(targets)),
        ),
        "regression": Kind(
            name="r2",
            loss=lambda outputs, targets: functional.mse_loss(outputs.reshape(targets.shape), targets.to(outputs.dtype)),
            scores=_minus_squared_error,
            summarize=r2,
            is_binary=False,
            output_fault=_regression_output_fault,
            target_fault=_constant_target_fault,
            chance=lambda _: 0.0,  # the mean of the targets has R2 = 0 by definition
        ),
        "language_modeling": Kind(
            name="token_accuracy",
            loss=lambda outputs, targets: functional.cross_entropy(
                outputs.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED
            ),
            scores=_share_of_right_tokens,
            summarize=mean_score,
            is_binary=False,
            output_fault=_language_output_fault,
            target_fault=_class_fault,
            chance=_share_of_commonest_token,
        ),
    }
)
"""Every kind by the name that `Task.kind` takes."""
