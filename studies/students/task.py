"""The embedded digits task with two students of its own: a narrower and a shallower network, trained from the CNN's answers."""

from __future__ import annotations

import dataclasses

from torch import nn

from autocut.tasks import digits


def narrow() -> nn.Module:
    """The same three convolutions with a quarter of the channels (8, 16, 16); 4,258 parameters."""
    return nn.Sequential(
        *_convolution(1, 8), *_convolution(8, 16), nn.MaxPool2d(2), *_convolution(16, 16), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * 2 * 2, 10),
    )  # fmt: skip


def shallow() -> nn.Module:
    """One convolution of 24 channels; 4,114 parameters."""
    return nn.Sequential(*_convolution(1, 24), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 4 * 4, 10))


def _convolution(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels_in, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()


task = dataclasses.replace(digits.task, name="students", students={"narrow": narrow, "shallow": shallow})
