"""Fashion-MNIST: 28 x 28 images of ten kinds of clothing, and a small CNN that autocut trains from scratch as its baseline."""

from __future__ import annotations

from collections.abc import Iterable

import data
import torch
from torch import Tensor, nn

from autocut import Task


class FashionCNN(nn.Module):
    """Three convolutions (32, 64, 96 channels) and one linear layer; 83,562 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 32, size=5, stride=2),
            *_convolution(32, 64, size=3),
            nn.MaxPool2d(2),
            *_convolution(64, 96, size=3),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(96 * 3 * 3, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 1, 28, 28)."""
        return self.classifier(self.features(images))


def _convolution(channels_in: int, channels: int, size: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU()


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, learning rate 2e-3."""
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)


task = Task(
    name="fashion_mnist",
    model=FashionCNN,
    train=data.train,
    validation=data.validation,
    test=data.test,
    kind="classification",
    batch_size=128,
    epochs=5,
    optimizer=optimizer,
    serving_batch_sizes=(1, 32),
    pretrained=False,
)
