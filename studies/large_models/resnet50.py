"""ResNet-50 (He et al. 2016, with the stride in the 3x3 convolutions) at 160 pixels; the weights are random."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from autocut import Task

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, number of blocks and stride of each stage."""


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution with batch normalization."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and a shortcut past them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = convolution(inputs, width, 1)
        self.filter = convolution(width, width, 3, stride)
        self.expand = convolution(width, 4 * width, 1)
        is_alike = stride == 1 and inputs == 4 * width
        self.shortcut = nn.Identity() if is_alike else convolution(inputs, 4 * width, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, 4 * width, h / stride, w / stride)."""
        filtered = functional.relu(self.filter(functional.relu(self.reduce(images))))
        return functional.relu(self.expand(filtered) + self.shortcut(images))


def model(classes: int = 10) -> nn.Module:
    """Build stem, 16 blocks and head."""
    torch.manual_seed(0)
    blocks, inputs = [], 64
    for width, count, stride in STAGES:
        for number in range(count):
            blocks.append(Bottleneck(inputs, width, 1 if number else stride))
            inputs = 4 * width
    stem = (convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def images(seed: int, count: int) -> TensorDataset:
    """Made-up images whose brightness tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=generator)
    brightness = (labels.float().view(-1, 1, 1, 1) - 4.5) / 5
    return TensorDataset(torch.randn(count, 3, 160, 160, generator=generator) * 0.5 + brightness, labels)


task = Task(
    name="resnet50", model=model, pretrained=True,
    train=lambda: images(0, 512), validation=lambda: images(1, 256), test=lambda: images(2, 256),
    kind="classification", batch_size=32, epochs=1,
)  # fmt: skip
