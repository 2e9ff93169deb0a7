"""Segmentation: one class for each pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from autocut.errors import Fault
from autocut.task.kinds import IGNORED, Kind, class_fault, kinds


@kinds.register("segmentation")
def segmentation() -> Kind:
    """Outputs (n, classes, h, w), targets (n, h, w) ids, -100 ignored: cross entropy per pixel, and the mean IoU of a split.

    Scores, shape (n, 2 * classes), are the intersections of a picture by class, then the unions, in pixels. The metric sums both
    over the split first. It is the mean over the classes that occur in the targets or in the answers.
    """
    return Kind(
        name="mean_iou",
        loss=lambda outputs, targets: functional.cross_entropy(outputs, targets.long(), ignore_index=IGNORED),
        scores=_intersections_and_unions,
        summarize=mean_iou,
        is_binary=False,
        output_fault=_output_fault,
        target_fault=_target_fault,
        chance=_iou_of_commonest_class,
        logits_shape=("n", "classes", "height", "width"),
        class_dim=1,
        counted=_counted,
        reads_targets=False,
    )


def mean_iou(scores: NDArray[Any], targets: NDArray[Any]) -> float:  # noqa: ARG001  (the signature of every summary)
    """Mean of intersection / union over the classes with a union, from scores of shape (n, 2 * classes). NaN without any pixel."""
    intersections, unions = np.split(scores.sum(axis=0), 2)
    occurs = unions > 0
    return float(np.mean(intersections[occurs] / unions[occurs])) if occurs.any() else float("nan")


def _counted(targets: Tensor) -> Tensor:
    return targets != IGNORED


def _intersections_and_unions(outputs: Tensor, targets: Tensor) -> Tensor:
    classes, counted = outputs.shape[1], _counted(targets)
    found, wanted = outputs.argmax(1), targets.long()
    # Each picture gets numbers of its own, so that one count serves the whole batch.
    start = classes * torch.arange(len(targets), device=targets.device)[:, None, None]

    def pixels(ids: Tensor, where: Tensor) -> Tensor:
        known = where & (ids >= 0) & (ids < classes)
        return torch.bincount((ids + start)[known], minlength=classes * len(targets)).view(-1, classes)

    both = pixels(wanted, counted & (found == wanted))
    either = pixels(found, counted) + pixels(wanted, counted) - both
    return torch.cat([both, either], dim=1).double()


def _iou_of_commonest_class(targets: Tensor) -> float:
    """A constant answer meets one class, and has an IoU of 0 for all others."""
    counts = torch.bincount(targets[_counted(targets)].long())
    return float(counts.max() / counts.sum() / (counts > 0).sum())


def _target_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    fault = class_fault(outputs.movedim(1, -1), targets[_counted(targets)])
    return fault and replace(fault, hint=f"count classes from 0, as integers; mark pixels that do not count with {IGNORED}")


def _output_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    pixels = (outputs.shape[0], *outputs.shape[2:])
    if outputs.dim() == 4 and pixels == targets.shape and outputs.shape[1] >= 2:
        return None
    return Fault(
        f"outputs must have shape (n, 2 or more classes, h, w) and targets (n, h, w) for kind 'segmentation', "
        f"got {tuple(outputs.shape)} and {tuple(targets.shape)}",
        "let the model answer at the size of the targets (functional.interpolate), and give class ids, no one-hot masks",
    )
