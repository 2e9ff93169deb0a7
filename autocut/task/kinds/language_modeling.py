"""Language modeling: the next token at each position of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autocut.errors import Fault
from autocut.task.batches import Inputs, tensors
from autocut.task.kinds import IGNORED, Kind, class_fault, kinds, mean_score


@kinds.register("language_modeling")
def language_modeling() -> Kind:
    """Outputs (n, t, vocabulary), targets (n, t) ids, -100 ignored: cross entropy, and the share of right tokens.

    ``targets[:, i]`` is what ``outputs[:, i]`` predicts. The metric is the mean over sequences, so a short sequence weighs as much
    as a long one.
    """
    return Kind(
        name="token_accuracy",
        loss=token_loss,
        scores=_share_of_right_tokens,
        summarize=mean_score,
        is_binary=False,
        output_fault=token_shape_fault,
        target_fault=token_fault,
        input_fault=unshifted_fault,
        chance=_share_of_commonest_token,
        logits_shape=("n", "length", "vocabulary"),
        counted=counted_tokens,
        shifts_tokens=True,
    )


def unshifted_fault(inputs: Inputs, targets: Tensor, kind: str = "language_modeling") -> Fault | None:
    """Return a fault where the targets, shape (n, t), are one of the inputs.

    Some libraries shift them inside their own loss. Here a model would learn to copy. Rows of one repeated token tell nothing.
    """
    counted = counted_tokens(targets)
    for name, tensor in tensors(inputs).items():
        if tensor.shape != targets.shape or not (tensor[:, 1:] != tensor[:, :-1]).any():
            continue
        if counted.any() and bool((tensor[counted] == targets[counted]).all()):
            return Fault(
                f"targets must be the next tokens for kind '{kind}', got those of {name} themselves",
                "shift the labels by one: inputs tokens[:, :-1], targets tokens[:, 1:]",
            )
    return None


def counted_tokens(targets: Tensor) -> Tensor:
    """Which targets count, as booleans of their shape."""
    return targets != IGNORED


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy, a mean over the tokens that count."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED)


def _share_of_right_tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    counted = counted_tokens(targets)
    right = (outputs.argmax(-1) == targets) & counted
    return right.sum(1) / counted.sum(1).clamp(min=1)


def _share_of_commonest_token(targets: Tensor) -> float:
    counted = targets[counted_tokens(targets)].long()
    return float(torch.bincount(counted).max() / len(counted))


def token_fault(outputs: Tensor, targets: Tensor) -> Fault | None:
    """Return a fault where a target that counts is no token of the vocabulary."""
    return class_fault(outputs, targets[counted_tokens(targets)])


def token_shape_fault(outputs: Tensor, targets: Tensor, kind: str = "language_modeling") -> Fault | None:
    """Return a fault where outputs are not (n, t, vocabulary) for targets (n, t)."""
    if outputs.dim() == 3 and outputs.shape[:2] == targets.shape:
        return None
    return Fault(
        f"outputs must have shape (n, t, vocabulary) and targets (n, t) for kind '{kind}', "
        f"got {tuple(outputs.shape)} and {tuple(targets.shape)}",
        "targets[:, i] is the token that outputs[:, i] predicts",
    )
