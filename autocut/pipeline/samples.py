"""A few training examples for pruning, calibration and timing.

They are the same in every process, and drawn from all over the training split, because data files are often sorted by class.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from autocut.task.batches import Batch, Inputs, pad, take
from autocut.task.splits import length
from autocut.task.task import Task, seeded

_CALIBRATION_BATCHES = 8


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
        """Return `batch_size` inputs, some of them twice where the split is smaller."""
        if batch_size not in self._served:
            ((inputs, _),) = self.batches(1, batch_size)
            self._served[batch_size] = take(pad(inputs, batch_size), batch_size)
        return self._served[batch_size]

    @cached_property
    def calibration(self) -> list[Inputs]:
        """Inputs for observers and exporters; the first is the export example."""
        return [inputs for inputs, _ in self.batches(_CALIBRATION_BATCHES, self._task.batch_size)]
