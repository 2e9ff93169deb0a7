"""CIFAR-10 with a ResNet-18 of 11.2 million parameters, trained by `train.py`: what can be cut from a wide network?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from augmentation import Augmented
from resnet18 import resnet18
from sibling import data, published
from torch import nn

from autocut import Task


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD at a tenth of the rate of the network's own training: it is recovered, not trained anew."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)


def train() -> Augmented:
    """Training images, mirrored and shifted at random."""
    return Augmented(data.train())


task = Task(
    name="cifar10_resnet18",
    model=resnet18,
    train=train,
    validation=data.validation,
    test=data.test,
    kind="classification",
    batch_size=128,
    epochs=4,
    optimizer=optimizer,
    serving_batch_sizes=(1, 32),
    pretrained=True,
    teacher=published.resnet56,
)
