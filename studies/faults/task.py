"""A small task whose training data cannot be read after sample 5,000."""

import torch
from torch import nn

from autocut import Task

READABLE = 5_000
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(480, 8, generator=generator)
targets = (inputs @ torch.randn(8, 4, generator=generator)).argmax(1)


class Ending(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Training examples, of which a process can read 5,000."""

    reads = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return 256

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one."""
        Ending.reads += 1
        if Ending.reads > READABLE:
            raise OSError(f"sample {Ending.reads} cannot be read")
        return inputs[index], targets[index]


def build() -> nn.Module:
    """Return a small network without weights."""
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


task = Task(
    name="ending",
    model=build,
    train=Ending(),
    validation=(inputs[256:368], targets[256:368]),
    test=(inputs[368:], targets[368:]),
    batch_size=32,
    epochs=6,
    pretrained=False,
)
