"""A task that trains in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from autocut.task.task import Task


def make_model() -> nn.Module:
    """(n, 8) -> (n, 3), with batch normalization and dropout: state and randomness to get wrong."""
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Make the blob task: 97 training examples (a last batch of one) of three classes."""

    def make(**changes: object) -> Task:
        generator = torch.Generator().manual_seed(1)
        labels = torch.randint(0, 3, (161,), generator=generator)
        inputs = torch.randn(161, 8, generator=generator) + 2 * nn.functional.one_hot(labels, 8)
        data = {
            "train": (inputs[:97], labels[:97]),
            "validation": (inputs[97:129], labels[97:129]),
            "test": (inputs[129:], labels[129:]),
        }
        return Task(**{"name": "blobs", "model": make_model, **data, "batch_size": 16, "epochs": 3, "pretrained": False, **changes})

    return make


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    """The blob task."""
    return make_task()
