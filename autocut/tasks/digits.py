"""The embedded task: 1,797 real handwritten digits, 8 x 8 pixels, that come with scikit-learn, and a small convolutional network.

`autocut search` without a task runs it. The network is untrained: autocut trains it as its baseline (over 98% within seconds).
Its three convolutions do enough arithmetic that at batch size 32 computing outweighs calling, so cutting it is worth something.

References:
    Alpaydin and Kaynak 1998, https://archive.ics.uci.edu/dataset/80 (the test part of it)
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autocut.task import Task

TRAIN, VALIDATION = 1077, 360
"""Examples of each split after a seeded shuffle; the remaining 360 are the locked test."""


class DigitsCNN(nn.Module):
    """Three convolutions (32, 64, 64 channels) over 8 x 8 pixels and one linear layer; 58,474 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(64 * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 1, 8, 8)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, learning rate 2e-3."""
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)


def train() -> TensorDataset:
    """Examples to train on."""
    return _part(0, TRAIN)


def validation() -> TensorDataset:
    """Examples to choose by."""
    return _part(TRAIN, TRAIN + VALIDATION)


def test() -> TensorDataset:
    """Examples that only finalization sees."""
    return _part(TRAIN + VALIDATION, None)


def _part(start: int, stop: int | None) -> TensorDataset:
    """Slice of the digits in an order that is the same everywhere."""
    pixels, digits = _read()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[start:stop]
    # 16 grey levels; the mean over all pixels is 4.9 and the deviation 6.0.
    images = (torch.from_numpy(pixels).float().unsqueeze(1) - 4.9) / 6.0
    return TensorDataset(images[order], torch.from_numpy(digits).long()[order])


def _read() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the pixels (1797, 8, 8) and the digits (1797,) of scikit-learn's `load_digits`, from the file that it reads.

    Importing scikit-learn itself takes a second or two, in each of the three processes that a search begins with (1.9).
    """
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    rows = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


task = Task(
    name="digits",
    model=DigitsCNN,
    train=train,
    validation=validation,
    test=test,
    kind="classification",
    batch_size=32,
    epochs=15,
    optimizer=optimizer,
    pretrained=False,
)
