"""The batch is the first dimension of every input, of the targets and of the output."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autocut.task.check import faults_of
from autocut.task.task import Task


class Recurrent(nn.Module):
    """A recurrent network with torch's default: time first."""

    def __init__(self):
        super().__init__()
        self.cells = nn.GRU(3, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, steps):
        """(time, n, 3) -> (n, 2)."""
        return self.head(self.cells(steps)[0][-1])


class Reader(nn.Module):
    """Answers for each step, as a loss over time wants it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, steps):
        """(n, time, 3) -> (time, n, 4)."""
        return self.layer(steps).transpose(0, 1)


def series(seed, steps):
    """Sixty series of `steps` steps."""
    values = torch.randn(60, steps, 3, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(values, (values.mean((1, 2)) > 0).long())


def time_first(items):
    """Stack series along dimension 1."""
    return torch.stack([values for values, _ in items], dim=1), torch.stack([label for _, label in items])


def faults(steps=7, **changes):
    """Faults of a task over series."""
    splits = {name: series(seed, steps) for seed, name in enumerate(("train", "validation", "test"))}
    return faults_of(Task(**{"name": "series", "pretrained": False, **splits, **changes}))


@pytest.mark.parametrize("steps", [7, 32])
def test_inputs_that_are_stacked_along_another_dimension_are_one_fault(steps):
    """Even where they have as many steps as the batch has examples; nothing is said about an export."""
    (fault,) = faults(steps, model=Recurrent, collate=time_first)

    assert "the first dimension of input_0 must be the batch" in fault.message
    assert "dim=0" in fault.hint
    assert "batch_first=True" in fault.hint


def test_an_output_with_time_first_is_one_fault_although_loss_and_metric_are_the_tasks_own():
    """Whatever cuts and joins batches would cut along time."""
    own = {"loss": lambda outputs, _: outputs.square().mean(), "metric": lambda outputs, _: outputs.mean((0, 2))}
    (fault,) = faults(model=Reader, **own)

    assert "the first dimension of the model's output must be the batch, got 7 rows for 32 examples" in fault.message
    assert "outputs.movedim(1, 0)" in fault.hint


def test_an_output_that_joins_the_examples_is_one_fault():
    """No dimension of it is the batch."""
    own = {"loss": lambda outputs, _: outputs.square().mean(), "metric": lambda outputs, _: outputs.mean((0, 2))}
    model = lambda: nn.Sequential(nn.Linear(3, 2), nn.Flatten(0, 1))  # noqa: E731
    (fault,) = faults(model=model, **own)

    assert "got 224 rows for 32 examples" in fault.message
    assert "one row for each example" in fault.hint


class Squeezes(Recurrent):
    """Drops every dimension of one."""

    def forward(self, steps):
        """(n, time, 3) -> (n, 2), and (2,) for one example."""
        return super().forward(steps.transpose(0, 1)).squeeze()


def test_an_output_that_loses_a_batch_of_one_is_one_fault():
    """A served model gets single examples."""
    (fault,) = faults(model=Squeezes)

    assert "must be the batch, got 2 rows for 1 example (shape (2,))" in fault.message
    assert "x.squeeze(-1)" in fault.hint


def test_one_example_that_becomes_two_rows_is_a_fault():
    """Scores and examples would not belong together."""
    doubled = lambda items: tuple(torch.stack([item[part] for item in items] * 2) for part in (0, 1))  # noqa: E731
    found = faults(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(21, 2)), collate=doubled)

    assert "got 64 rows for 32 examples" in found[0].message
    assert found[0].hint == "collate= must give one row for each example"
