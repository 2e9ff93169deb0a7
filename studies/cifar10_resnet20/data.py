"""CIFAR-10 from its binary layout.

The published ResNet-20 has seen all training images, so they serve to calibrate and to recover, never to choose: validation and
the locked test split are two halves of the 10,000 official test images. Which half an image is in follows from its pixels
alone, so that it does not depend on the order of the rows.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from autocut.errors import TaskError
from autocut.tasks.data_files import DataFile

_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

RECORD = 1 + 3 * 32 * 32  # label, then the planes R, G, B
# ImageNet's, because the published weights were trained with them.
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def _file(name: str) -> DataFile:
    return DataFile("cifar-10-batches-bin", name, _URL, _SHA256, in_archive=True)


TEST_FILE = _file("test_batch.bin")
TRAIN_FILES = tuple(_file(f"data_batch_{number}.bin") for number in range(1, 6))


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Colour images that stay bytes in memory and become normalized floats (3, 32, 32) a batch at a time."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels
        self.labels = labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One image and its class."""
        images, labels = self.fetch_batch(torch.tensor([index]))
        return images[0], labels[0]

    def fetch_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Whole batch: images (n, 3, 32, 32) and classes (n,)."""
        return (self.pixels[indices].float() / 255 - MEAN) / STD, self.labels[indices]


def train() -> Images:
    """Training images: the first batch file, and those of the other four that are there. Not augmented."""
    first, *others = TRAIN_FILES
    paths = [first.fetch(), *(path for file in others if (path := file.find()) is not None)]
    parts = [read_batch(path) for path in paths]
    return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))


def validation() -> Images:
    """One half of the official test images."""
    return _half(0)


def test() -> Images:
    """The other half."""
    return _half(1)


@cache
def official_test() -> Images:
    """All official test images, in the order of the hashes of their pixels."""
    images = read_batch(TEST_FILE.fetch())
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images.pixels.numpy()]
    order = torch.tensor(sorted(range(len(digests)), key=digests.__getitem__))
    return Images(images.pixels[order], images.labels[order])


def _half(part: int) -> Images:
    images = official_test()
    return Images(images.pixels[part::2], images.labels[part::2])


def read_batch(path: Path) -> Images:
    """Read one batch file.

    Raises:
        TaskError: it is not made of whole records with labels 0 to 9.
    """
    content = np.fromfile(path, dtype=np.uint8)
    if len(content) == 0 or len(content) % RECORD:
        raise TaskError(
            f"{path.name} must be records of {RECORD} bytes, got {len(content)} bytes ({path})", "delete it to download it again"
        )
    records = torch.from_numpy(content).view(-1, RECORD)
    if int(records[:, 0].max()) > 9:
        raise TaskError(
            f"{path.name} must have labels 0..9, got {int(records[:, 0].max())} ({path})", "take the binary version of CIFAR-10"
        )
    return Images(records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), records[:, 0].long())
