"""CIFAR-10 with the published ResNet-56 (93.39%): the same as `task.py` for a network of three times its depth."""

from __future__ import annotations

from collections.abc import Iterable

import data
import torch
from resnet import resnet56
from torch import nn

from autocut import Task


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD as in the network's own training, at the learning rate of its last phases: it is recovered, not trained anew."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)


task = Task(
    name="cifar10_resnet56",
    model=resnet56,
    train=data.train,
    validation=data.validation,
    test=data.test,
    kind="classification",
    batch_size=128,
    epochs=8,
    optimizer=optimizer,
    serving_batch_sizes=(1, 32),
    pretrained=True,
)
