"""The kinds of task: what loss, score and metric are where the user does not say.

A kind is one file of this folder. It registers a function that returns its `Kind`, whose fields are functions of that file::

    @kinds.register("ranking")
    def ranking() -> Kind:
        "Right are outputs (n, items) whose largest value is among the 3 best items; targets are (n,) ids."
        return Kind(
            name="hit_rate",                                              # of the metric
            loss=lambda outputs, targets: functional.cross_entropy(outputs, targets.long()),
            scores=_is_among_the_best,                                    # (outputs, targets) -> (n,) or (n, k)
            summarize=mean_score,                                         # (scores, targets) of a split -> the metric
            is_binary=True,                                               # a score is 0 or 1
            output_fault=_output_fault,
            target_fault=_target_fault,
            logits_shape=("n", "items"),
        )

Each example has scores of its own, so that two models are compared example by example: one number, or the k numbers that the metric
of a split is made of (intersections and unions, say). The metric is higher for a better model. A user names the kind in
``Task(kind="ranking")``. A distillation loss takes the kind if it fits what the outputs mean (`Kind.meaning`).
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autocut.counting import format_count
from autocut.errors import Fault
from autocut.registry import MethodOptions, Registry, import_all
from autocut.task.batches import Inputs

IGNORED = -100
"""Target value that no loss and no score looks at, as in `torch.nn.functional.cross_entropy`."""

Scalar = Callable[[Tensor, Tensor], Tensor]
Summary = Callable[[NDArray[Any], NDArray[Any]], float]
TargetCheck = Callable[[Tensor, Tensor], Fault | None]


class Meaning(enum.StrEnum):
    """What the numbers of an output mean. It decides how a student may follow its teacher."""

    CLASSES = "logits of classes that exclude each other"
    LABELS = "logits of labels, each true or false by itself"
    NUMBERS = "numbers"
    UNKNOWN = "of no meaning that is known"


def _no_fault(inputs: Inputs, targets: Tensor) -> None:  # noqa: ARG001  (the signature of `input_fault`)
    return None


@dataclass(frozen=True)
class Kind:
    """How outputs are judged, and what examples and outputs look like.

    `name` is that of the metric. `loss` gives a scalar, `scores` the numbers of each example, shape (n,) or (n, k).
    `summarize` turns the scores and the targets of a split into the metric, higher is better. `is_binary`: scores have shape (n,)
    and are 0 or 1. `reads_targets`: `summarize` looks at the targets; else a measurement keeps only a hash of each.
    `is_error`: the metric is minus an error, and so never above 0.

    `autocut check` uses these: `output_fault` looks at one batch's outputs and targets, `target_fault` at one batch's outputs and
    any number of targets, `input_fault` at one batch's inputs and targets. `chance` is the metric of the best constant answer to
    these targets (None where that is not known).

    `logits_shape` names the dimensions of outputs that are logits (None: outputs are no logits); `class_dim` is the one of the
    classes. `meaning` says what outputs mean; left out, it stands for classes where there is a `logits_shape`.
    `counted` says which targets count, as booleans of their shape (None: all do). `shifts_tokens`: an example may be one tensor of
    token ids, whose targets are the same tokens one step later.
    """

    name: str
    loss: Scalar
    scores: Scalar
    summarize: Summary
    is_binary: bool
    output_fault: TargetCheck
    target_fault: TargetCheck
    input_fault: Callable[[Inputs, Tensor], Fault | None] = _no_fault
    chance: Callable[[Tensor], float] | None = None
    logits_shape: tuple[str, ...] | None = None
    counted: Callable[[Tensor], Tensor] | None = None
    shifts_tokens: bool = False
    class_dim: int = -1
    meaning: Meaning = Meaning.UNKNOWN
    reads_targets: bool = True
    is_error: bool = False

    def __post_init__(self) -> None:
        """Fill in what `logits_shape` implies."""
        if self.meaning is Meaning.UNKNOWN and self.logits_shape is not None:
            object.__setattr__(self, "meaning", Meaning.CLASSES)


kinds: Registry[Callable[[], Kind], MethodOptions] = Registry("task.kind", MethodOptions)
"""Every kind by the name that `Task.kind` takes."""


def mean_score(scores: NDArray[Any], targets: NDArray[Any]) -> float:  # noqa: ARG001  (the signature of every summary)
    """Mean of the scores."""
    return float(np.mean(scores))


def with_own_functions(kind: Kind, loss: Scalar | None, metric: Scalar | None, summarize: Summary | None) -> Kind:
    """Replace the loss, metric and summary of `kind` by a task's own, where they are given."""
    loss = loss or kind.loss
    if metric is None:
        if summarize is None:
            return replace(kind, loss=loss)
        # The task's own summary may read the targets, and what a constant answer gives is not known.
        return replace(kind, loss=loss, summarize=summarize, chance=None, reads_targets=True, is_error=False)
    return replace(
        kind,
        name=getattr(metric, "__name__", "metric"),
        loss=loss,
        scores=metric,
        summarize=summarize or mean_score,
        is_binary=False,
        chance=None,
        reads_targets=summarize is not None or kind.reads_targets,
        is_error=False,
    )


def join_targets(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the targets of all batches. Batches of text may differ in length; shorter ones are padded to the longest."""
    shapes = np.array([part.shape[1:] for part in parts])
    if (shapes == shapes[0]).all():
        return np.concatenate(parts)
    longest = shapes.max(axis=0)
    filler = np.nan if np.issubdtype(parts[0].dtype, np.inexact) else IGNORED
    return np.concatenate(
        [
            np.pad(
                part,
                [(0, 0), *((0, most - length) for most, length in zip(longest, part.shape[1:], strict=True))],
                constant_values=filler,
            )
            for part in parts
        ]
    )


def class_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    """Return a fault where `targets`, those that count, are no class ids for `outputs`, shape (..., classes)."""
    if targets.is_floating_point() or targets.is_complex():
        return Fault(
            f"targets must be integer class ids, got {targets.dtype}", "convert them with .long(), or set kind='regression'"
        )
    if len(targets) == 0:
        return Fault(f"targets must count somewhere, got {IGNORED} everywhere", "give it to padding alone")
    classes = outputs.shape[-1]
    outside = targets[(targets < 0) | (targets >= classes)]
    if len(outside) == 0:
        return None
    return Fault(
        f"targets must be within 0..{classes - 1} for a model with {format_count(classes, 'output')}, got {outside[0].item()}",
        "count classes from 0, or widen the last layer",
    )


import_all(sys.modules[__name__])
