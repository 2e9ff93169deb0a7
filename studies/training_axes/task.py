"""The embedded digits with a network that takes images of any size: its last layer gets the means over the image."""

from __future__ import annotations

import dataclasses

from torch import nn

from autocut.tasks import digits


def pooled() -> nn.Module:
    """Three convolutions (32, 64, 64 channels), the means over all pixels, and a linear layer; 56,554 parameters."""
    return nn.Sequential(
        *_convolution(1, 32), *_convolution(32, 64), nn.MaxPool2d(2), *_convolution(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip


def _convolution(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels_in, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()


task = dataclasses.replace(digits.task, name="pooled-digits", model=pooled)
