"""Multi-label: any number of the labels is true for an example."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autocut.errors import Fault
from autocut.task.kinds import Kind, Meaning, kinds, mean_score


@kinds.register("multilabel")
def multilabel() -> Kind:
    """Outputs (n, labels) logits, targets (n, labels) 0 or 1: binary cross entropy, and the F1 of each example, averaged.

    F1 per example is a mean over examples (`average="samples"` of scikit-learn), so two models are compared example by example.
    Mean average precision is a mean over labels, and is no such mean. A label is found where its logit is above 0. An example
    without labels for which none is found has F1 = 1.
    """
    return Kind(
        name="f1_per_example",
        loss=lambda outputs, targets: functional.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype)),
        scores=_f1,
        summarize=mean_score,
        is_binary=False,
        output_fault=_output_fault,
        target_fault=_target_fault,
        chance=_f1_of_commonest_labels,
        logits_shape=("n", "labels"),
        meaning=Meaning.LABELS,
        reads_targets=False,
    )


def _f1(outputs: Tensor, targets: Tensor) -> Tensor:
    found, wanted = outputs > 0, targets > 0.5
    both, either = (found & wanted).sum(1), found.sum(1) + wanted.sum(1)
    return torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0)


def _f1_of_commonest_labels(targets: Tensor) -> float:
    """The best F1 of an answer that names the same k commonest labels for every example, over all k from 0."""
    wanted = targets[:, targets.sum(0).argsort(descending=True)].double()
    both = functional.pad(wanted.cumsum(1), (1, 0))
    either = torch.arange(both.shape[1]) + wanted.sum(1, keepdim=True)
    return float(torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0).mean(0).max())


def _output_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    if outputs.dim() == 2 and outputs.shape == targets.shape:
        return None
    return Fault(
        f"outputs and targets must both have shape (n, labels) for kind 'multilabel', got {tuple(outputs.shape)} "
        f"and {tuple(targets.shape)}",
        "give 0 or 1 for each label; for one class per example set kind='classification'",
    )


def _target_fault(outputs: Tensor, targets: Tensor) -> Fault | None:  # noqa: ARG001  (the signature of every check)
    others = targets[(targets != 0) & (targets != 1)]
    if len(others) == 0:
        return None
    return Fault(
        f"targets must be 0 or 1 for kind 'multilabel', got {others[0].item()}",
        "round them, or give loss= and metric= of your own for soft labels",
    )
