"""A task whose training sleeps, and which writes down when a worker is alone on its node.

Simulated nodes share two cores. Sleeping takes none, so what is left to see is whether the nodes work side by side.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocut import Task
from autocut.measure import machine, quiet
from autocut.node import node_folder

generator = torch.Generator().manual_seed(0)
inputs = torch.randn(480, 8, generator=generator)
targets = (inputs @ torch.randn(8, 4, generator=generator)).argmax(1)


class Pausing(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Training examples that take a moment each: NODES_EPOCH_S seconds for all of them."""

    def __len__(self) -> int:
        """Return how many there are."""
        return 256

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one, after a moment."""
        time.sleep(float(os.environ.get("NODES_EPOCH_S", "0.25")) / len(self))
        return inputs[index], targets[index]


def build() -> nn.Module:
    """Return a small network without weights."""
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return an optimizer, and note in the node's lock folder that a training begins there."""
    if "NODES_EPOCH_S" in os.environ:
        with Path(node_folder(), "trainings.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{os.getpid()}\n")
    return torch.optim.AdamW(parameters, lr=1e-3)


def write_down_when_alone() -> None:
    """Have every worker note in the node's lock folder from when to when it held the exclusive side of the quiet lock."""
    take = quiet.QuietLock.exclusive
    if getattr(take, "is_written_down", False):
        return

    @contextlib.contextmanager
    def taken(self: quiet.QuietLock, **options: Any) -> Iterator[None]:
        was_alone = self._mode == "exclusive"
        with take(self, **options):
            began = time.monotonic()
            try:
                yield
            finally:
                if not was_alone:
                    line = json.dumps([began, time.monotonic(), os.getpid()])
                    with Path(node_folder(), "alone.jsonl").open("a", encoding="utf-8") as stream:
                        stream.write(line + "\n")

    taken.is_written_down = True  # type: ignore[attr-defined]
    quiet.QuietLock.exclusive = taken  # type: ignore[method-assign]


def pretend_to_be(cpu: str) -> None:
    """Have this process see another processor. A real one of another kind is not at hand."""
    describe = machine.describe_machine
    machine.describe_machine = lambda: dataclasses.replace(describe(), cpu=cpu)
    machine.machine_fingerprint.cache_clear()


if "NODES_EPOCH_S" in os.environ:
    write_down_when_alone()
if "NODES_CPU" in os.environ:
    pretend_to_be(os.environ["NODES_CPU"])

task = Task(
    name="pausing",
    model=build,
    train=Pausing(),
    validation=(inputs[256:368], targets[256:368]),
    test=(inputs[368:], targets[368:]),
    optimizer=optimizer,
    kind="classification",
    batch_size=32,
    epochs=1,
    serving_batch_sizes=(1, 8),
    pretrained=False,
)
