"""stories260K: a published language model of 260,000 parameters that tells stories for children, and what can be cut of it."""

from __future__ import annotations

from collections.abc import Iterable

import data
import torch
from llama import Llama, read_llama
from torch import nn

from autocut import Task


def stories260k() -> Llama:
    """The published weights."""
    return read_llama(data.WEIGHTS.fetch())


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW at a low learning rate: the model is recovered, not trained anew."""
    return torch.optim.AdamW(parameters, lr=5e-4, weight_decay=0.0)


task = Task(
    name="stories260k",
    model=stories260k,
    train=data.train,
    validation=data.validation,
    test=data.test,
    kind="perplexity",
    batch_size=16,
    epochs=4,
    optimizer=optimizer,
    serving_batch_sizes=(1, 32),
    pretrained=True,
)
