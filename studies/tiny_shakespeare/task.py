"""Tiny Shakespeare: which letter comes next? A GPT of 800,000 parameters that is trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable

import data
import torch
from gpt import GPT
from torch import nn

from autocut import Task


def small_gpt() -> GPT:
    """Four layers of width 128 with four heads."""
    return GPT(len(data.LETTERS), data.WINDOW)


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, learning rate 2e-3."""
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)


task = Task(
    name="tiny_shakespeare",
    model=small_gpt,
    train=data.train,
    validation=data.validation,
    test=data.test,
    kind="perplexity",
    batch_size=32,
    epochs=4,
    optimizer=optimizer,
    serving_batch_sizes=(1, 32),
    pretrained=False,
)
