"""Mirrors and shifts training images at random, as is usual for CIFAR-10."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

SHIFT = 4
"""The most pixels by which an image is shifted, in each direction; zeros, which are the mean colour, come in."""


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """The images of a data set, changed at random each time that they are read; torch's own random state decides."""

    def __init__(self, images: Any) -> None:
        self._images = images

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One image and its class."""
        images, labels = self.fetch_batch(torch.tensor([index]))
        return images[0], labels[0]

    def fetch_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Whole batch: images (n, 3, 32, 32) and classes (n,)."""
        images, labels = self._images.fetch_batch(indices)
        return mirrored_and_shifted(images), labels


def mirrored_and_shifted(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirror half of the images, shape (n, channels, height, width), and shift each by up to `SHIFT` pixels."""
    count, _, height, width = images.shape
    mirrored = torch.rand(count, generator=generator) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    padded = functional.pad(images, (SHIFT,) * 4)
    down, right = (torch.randint(0, 2 * SHIFT + 1, (count, 1, 1), generator=generator) for _ in range(2))
    rows, columns = down + torch.arange(height).view(1, -1, 1), right + torch.arange(width).view(1, 1, -1)
    return padded[torch.arange(count).view(-1, 1, 1), :, rows, columns].permute(0, 3, 1, 2).contiguous()
