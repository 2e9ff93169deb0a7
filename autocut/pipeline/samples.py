"""A few training examples for pruning, calibration and timing.

They are the same in every process, and drawn from all over the training split, because data files are often sorted by class.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from autocut.task.batches import Batch, Inputs, pad, take, tensors
from autocut.task.splits import length
from autocut.task.task import Task, seeded

_CALIBRATION_BATCHES = 8
_BATCHES_FOR_LENGTH = 31
"""Drawn to find a batch of median length."""


class Samples:
    """Batches of the training split of `task`, drawn once."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._seed = seed
        self._served: dict[int, Inputs] = {}

    def batches(self, count: int, batch_size: int) -> list[Batch]:
        """Return `count` batches, fewer where the split is smaller."""
        total = length(self._task.train_data)
        indices = torch.from_numpy(np.random.default_rng(self._seed).permutation(total)[: count * batch_size])
        with seeded(self._seed):
            return list(self._task.loader(self._task.train_data, batch_size, indices=indices))

    def serving_inputs(self, batch_size: int) -> Inputs:
        """Return `batch_size` inputs, some of them twice where the split is smaller.

        Where batches differ in length, this is the one of the median length among some that are as large: padded only among
        themselves, as a server would get them.
        """
        if batch_size not in self._served:
            count = 1 if self._task.dynamic is None else _BATCHES_FOR_LENGTH
            drawn = [take(pad(inputs, batch_size), batch_size) for inputs, _ in self.batches(count, batch_size)]
            # The last batch of a small split is smaller: repeated rows have the length of the few.
            self._served[batch_size] = sorted(drawn, key=_numbers)[(len(drawn) - 1) // 2]
        return self._served[batch_size]

    @cached_property
    def calibration(self) -> list[Inputs]:
        """Inputs for observers and exporters; the first is the export example. Where lengths are free, it is the largest."""
        drawn = [inputs for inputs, _ in self.batches(_CALIBRATION_BATCHES, self._task.batch_size)]
        return drawn if self._task.dynamic is None else sorted(drawn, key=_numbers, reverse=True)


def _numbers(inputs: Inputs) -> int:
    """How many numbers a batch holds: batches of one size differ in it by their lengths."""
    return sum(tensor.numel() for tensor in tensors(inputs).values())
