"""Perplexity: language modeling judged by how probable the right tokens are, not by whether they are the most probable ones.

The metric is minus the perplexity: higher is better, and a front shows the number that people know. -20 is a perplexity of 20, and
5% less is a perplexity of 21. (1 / perplexity would lie between 0 and 1 like an accuracy, but 5 points of 0.05 are everything.)
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.task.kinds import Kind, kinds
from autocut.task.kinds.language_modeling import counted_tokens, token_fault, token_loss, token_shape_fault, unshifted_fault

_MOST_NATS = 100.0
"""A loss per token beyond this is as bad as this: its exponential would be no finite number."""


@kinds.register("perplexity")
def perplexity() -> Kind:
    """Outputs (n, t, vocabulary), targets (n, t) ids, -100 ignored: cross entropy, and minus the perplexity of a whole split.

    Scores, shape (n, 2), are the summed log-probability of a sequence and its number of tokens. So each token weighs the same.
    """
    return Kind(
        name="negative_perplexity",
        loss=token_loss,
        scores=_log_probability_and_tokens,
        summarize=negative_perplexity,
        is_binary=False,
        output_fault=partial(token_shape_fault, kind="perplexity"),
        target_fault=token_fault,
        input_fault=partial(unshifted_fault, kind="perplexity"),
        chance=_of_token_frequencies,
        logits_shape=("n", "length", "vocabulary"),
        counted=counted_tokens,
        shifts_tokens=True,
        reads_targets=False,
        is_error=True,
    )


def negative_perplexity(scores: NDArray[Any], targets: NDArray[Any]) -> float:  # noqa: ARG001  (the signature of every summary)
    """Minus the perplexity, from summed log-probabilities and numbers of tokens, shape (n, 2). NaN where no token counts."""
    log_probability, tokens = scores.sum(axis=0)
    return -math.exp(min(-log_probability / tokens, _MOST_NATS)) if tokens > 0 else math.nan


def _log_probability_and_tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    counted = counted_tokens(targets)
    wanted = targets.long().where(counted, 0).unsqueeze(-1)
    # One sequence at a time: a large vocabulary makes the logarithms of a whole batch large.
    rows = [row.float().log_softmax(-1).gather(-1, at).squeeze(-1) for row, at in zip(outputs, wanted, strict=True)]
    sums = torch.stack([row.double().where(counts, 0.0).sum() for row, counts in zip(rows, counted, strict=True)])
    return torch.stack([sums, counted.sum(1).double()], dim=1)


def _of_token_frequencies(targets: Tensor) -> float:
    """The best constant answer gives each token the probability that it has in the targets."""
    counts = np.unique_counts(targets[counted_tokens(targets)].numpy()).counts
    shares = counts / counts.sum()
    return -float(np.exp(-np.sum(shares * np.log(shares))))
