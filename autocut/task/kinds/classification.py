"""Classification: one class for each example."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autocut.errors import Fault
from autocut.task.kinds import Kind, class_fault, kinds, mean_score


@kinds.register("classification")
def classification() -> Kind:
    """Outputs (n, classes), targets (n,) class ids: cross entropy, and the share of right classes."""
    return Kind(
        name="accuracy",
        loss=lambda outputs, targets: functional.cross_entropy(outputs, targets.long()),
        scores=lambda outputs, targets: (outputs.argmax(1) == targets).float(),
        summarize=mean_score,
        is_binary=True,
        output_fault=_output_fault,
        target_fault=class_fault,
        chance=lambda targets: float(torch.bincount(targets.long()).max() / len(targets)),
        logits_shape=("n", "classes"),
    )


def _output_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    if targets.dim() != 1:
        return Fault(
            f"targets must have shape (n,) for kind 'classification', got {tuple(targets.shape)}",
            _shape_hint(targets),
        )
    if outputs.dim() == 2 and len(outputs) == len(targets) and outputs.shape[1] >= 2:
        return None
    return Fault(
        f"outputs must have shape ({len(targets)}, 2 or more classes) for kind 'classification', got {tuple(outputs.shape)}",
        "end the model with nn.Linear(..., classes), or set kind=",
    )


def _shape_hint(targets: Tensor) -> str:
    if targets.dim() == 2 and targets.shape[1] == 1:
        return "give class ids of shape (n,): targets.squeeze(1)"
    if targets.dim() == 2 and bool(((targets == 0) | (targets == 1)).all()) and bool((targets.sum(1) == 1).all()):
        return "give class ids in place of one-hot rows: targets.argmax(1); for several labels set kind='multilabel'"
    return "give class ids; for a class per pixel set kind='segmentation', for several labels kind='multilabel'"
