"""ResNet-18 for 32 x 32 images: a stem of 3 x 3, no pooling before the mean, and shortcuts of 1 x 1 where the shape changes.

References:
    He et al. 2015, section 4.1, https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import TaskError, quoted

WEIGHTS = "CIFAR10_RESNET18_WEIGHTS"
"""The environment variable that names the file of the weights, which `train.py` has written."""

_WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two convolutions and a shortcut, which is a convolution of 1 x 1 where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels_in != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (n, channels, height / stride, width / stride)."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(residual + self.shortcut(x))


class ResNet18(nn.Module):
    """A stem, four stages of two blocks with 64 to 512 channels, and a linear layer; 11,173,962 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        channels_in, stages = _WIDTHS[0], []
        for at, channels in enumerate(_WIDTHS):
            stages.append(nn.Sequential(Block(channels_in, channels, 2 if at else 1), Block(channels, channels, 1)))
            channels_in = channels
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(_WIDTHS[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 3, height, width)."""
        x = self.stages(functional.relu(self.bn1(self.conv1(images))))
        return self.linear(x.mean((2, 3)))


def resnet18() -> ResNet18:
    """The network with the weights that `train.py` has written.

    Raises:
        TaskError: no file of weights is named, or it is of something else.
    """
    hint = "train it: python studies/cifar10_resnet18/train.py FILE"
    path = Path(os.environ.get(WEIGHTS, "")).expanduser()
    if not path.is_file():
        raise TaskError(f"{WEIGHTS} must name the file of the trained weights, got {quoted(str(path))}", hint)
    model = ResNet18()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, EOFError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise TaskError(f"{path.name} must be the weights of this network, got {reason} ({path})", hint) from error
    return model
