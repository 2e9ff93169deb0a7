"""The teacher's outputs: the logits of the untouched model, computed once if the data allow it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autocut.errors import DeadlineError
from autocut.precision import CONTIGUOUS
from autocut.stages.device import CPU, Device
from autocut.task.batches import Batch, Inputs, call, move, tensors
from autocut.task.splits import length, spread
from autocut.task.task import Task, evaluation_mode, seeded

Gate = Callable[[], AbstractContextManager[object]]

LARGEST_TABLE_BYTES = 1 << 30
PROBED_EXAMPLES = 16


@dataclass(frozen=True)
class Teacher:
    """Gives the teacher's logits for a batch.

    They are read from `logits`, shape (n, ...), by position in the training set. If `logits` is None, the model is run. Stored
    logits are right only for data that read the same twice (`teacher_logits` returns None for others), because a teacher must see
    the same view of an example as the student (Beyer et al. 2022).
    """

    model: nn.Module
    logits: Tensor | None = None

    def logits_for(self, inputs: Inputs, indices: Tensor) -> Tensor:
        """Return the logits of the examples at `indices` of the training set, whose inputs are `inputs`."""
        if self.logits is not None:
            return self.logits[indices]
        return run_teacher(self.model, inputs)

    def placed_on(self, device: Device) -> Teacher:
        """Return this teacher with its model on `device`, if the model is run at all. Stored logits stay where they are."""
        if self.logits is not None:
            return self
        if device.memory_format == CONTIGUOUS:
            return replace(self, model=device.placed_copy(self.model))
        return replace(self, model=device.place_for_training(copy.deepcopy(self.model)))


@torch.no_grad()
def run_teacher(model: nn.Module, inputs: Inputs) -> Tensor:
    """Run `model` in eval mode, on its own device, without gradients."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with evaluation_mode(model):
        return call(model, move(inputs, device))


def sample_examples(task: Task, count: int) -> Batch:
    """Read `count` training examples, or all if there are fewer, spread over the split. The global random state stays as it was."""
    indices = spread(length(task.train_data), count)
    with seeded(0):
        return next(iter(task.loader(task.train_data, len(indices), indices=indices)))


def teacher_logits(
    model: nn.Module,
    task: Task,
    *,
    gate: Gate = contextlib.nullcontext,
    stop: Callable[[], bool] = lambda: False,
    device: Device = CPU,
) -> Tensor | None:
    """Return the logits of `model`, run on `device`, for the whole training set, or None where they cannot be stored.

    They are on the CPU.

    They cannot be stored if the data set augments at random (a few examples read twice differ), or if the table would be larger
    than 1 GiB (a language model's vocabulary). Then each batch has to be run.

    Raises:
        DeadlineError: `stop()` turned true between two batches.
    """
    if not is_deterministic(task):
        return None
    model = device.placed_copy(model)
    table: Tensor | None = None
    position, total = 0, length(task.train_data)
    loader = iter(task.loader(task.train_data, task.batch_size))
    while position < total:
        if stop():
            raise DeadlineError("the time granted to the trial is up while the teacher runs")
        with gate():
            inputs, _ = next(loader)
            logits = run_teacher(model, device.move_inputs(inputs)).cpu()
            if table is None:
                if task.dynamic is not None and logits.dim() > 2:
                    return None  # sequences: shuffled batches have other lengths than these
                if logits[0].numel() * logits.element_size() * total > LARGEST_TABLE_BYTES:
                    return None
                table = logits.new_empty((total, *logits.shape[1:]))
            if logits.shape[1:] != table.shape[1:]:
                return None  # sequences of different lengths fit into no table
            table[position : position + len(logits)] = logits
            position += len(logits)
    return table


def is_deterministic(task: Task) -> bool:
    """Whether a few training examples, spread over the set, read the same twice."""
    indices = spread(length(task.train_data), PROBED_EXAMPLES)
    with seeded(0):  # one stream for both readings, so that random augmentation differs between them
        first, second = (
            [tensors(inputs) for inputs, _ in task.loader(task.train_data, len(indices), indices=indices)] for _ in range(2)
        )
    return all(
        left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
        for left, right in zip(first, second, strict=True)
    )
