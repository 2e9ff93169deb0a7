"""ResNet for 32 x 32 images with parameter-free shortcuts (option A).

References:
    He et al. 2015, section 4.2, https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import TaskError
from autocut.tasks.data_files import DataFile

_URL = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"


def _weights(name: str, sha256: str) -> DataFile:
    return DataFile("weights_cifar10_resnet", name, f"{_URL}/{name}", sha256)


WEIGHTS_20 = _weights("resnet20-12fca82f.th", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8")
WEIGHTS_56 = _weights("resnet56-4bfd9763.th", "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367")


class Block(nn.Module):
    """Two convolutions and a shortcut, which takes every other pixel and pads channels with zeros where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.added_channels = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (n, channels, height / stride, width / stride)."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            half = self.added_channels // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added_channels - half))
        return functional.relu(residual + x)


class ResNet(nn.Module):
    """A stem, three stages of `depth` blocks with 16, 32 and 64 channels, and a linear layer; 6 x depth + 2 layers."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(depth, 16, 16, stride=1)
        self.layer2 = _stage(depth, 16, 32, stride=2)
        self.layer3 = _stage(depth, 32, 64, stride=2)
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 3, 32, 32)."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def resnet20() -> ResNet:
    """The published ResNet-20: 269,722 parameters, 91.73% on the official test images."""
    return load(ResNet(3), WEIGHTS_20.fetch())


def resnet56() -> ResNet:
    """The published ResNet-56: 853,018 parameters, 93.39% on the official test images."""
    return load(ResNet(9), WEIGHTS_56.fetch())


def load(model: ResNet, path: Path) -> ResNet:
    """Load a published checkpoint into `model`; its names start with ``module.`` because it was trained in parallel.

    Raises:
        TaskError: it is not a checkpoint of this network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    except (OSError, RuntimeError, KeyError, TypeError, EOFError) as error:
        first = str(error).partition("\n")[0]
        raise TaskError(f"{path.name} must be the published checkpoint, got {type(error).__name__}: {first} ({path})") from error
    return model


def _stage(depth: int, channels_in: int, channels: int, stride: int) -> nn.Sequential:
    first = Block(channels_in, channels, stride)
    return nn.Sequential(first, *(Block(channels, channels, 1) for _ in range(depth - 1)))
