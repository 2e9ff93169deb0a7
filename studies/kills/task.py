"""A task whose training sleeps, so that a search passes all its phases within seconds."""

import time

import torch
from torch import nn

from autocut import Task

generator = torch.Generator().manual_seed(0)
inputs = torch.randn(480, 8, generator=generator)
targets = (inputs @ torch.randn(8, 4, generator=generator)).argmax(1)


class Pausing(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Training examples that take a moment each."""

    def __len__(self) -> int:
        """Return how many there are."""
        return 256

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one, after a moment."""
        time.sleep(0.001)
        return inputs[index], targets[index]


def build() -> nn.Module:
    """Return a small network without weights."""
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


task = Task(
    name="tiny",
    model=build,
    train=Pausing(),
    validation=(inputs[256:368], targets[256:368]),
    test=(inputs[368:], targets[368:]),
    batch_size=32,
    epochs=6,
    pretrained=False,
)
