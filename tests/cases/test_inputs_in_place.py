"""A model that changes its inputs in place is told so."""

from __future__ import annotations

import torch
from torch import nn

from autocut.task.check import faults_of
from autocut.task.task import Task


class Normalizes(nn.Module):
    """Writes into one of its two inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, mask, values):
        """(n, 4), (n, 4) -> (n, 3)."""
        return self.layer(values.sub_(0.5).div_(2) * mask)


def rows(seed):
    """Items with two inputs."""
    values = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed))
    return [{"mask": torch.ones(4), "values": row, "label": row[:3].argmax()} for row in values]


def test_the_input_is_named_and_dropout_is_not():
    """The answers differ from call to call, but the model is deterministic."""
    (fault,) = faults_of(Task(name="tiny", model=Normalizes, train=rows(0), validation=rows(1), test=rows(2), pretrained=False))

    assert fault.message == "task.model must leave its inputs as they are, got changes in place of values"
    assert "x.clone()" in fault.hint
    assert "dropout" not in fault.hint.lower()


class Reads(Normalizes):
    """The same answers, and inputs that stay."""

    def forward(self, mask, values):
        """(n, 4), (n, 4) -> (n, 3)."""
        return super().forward(mask, values.clone())


def test_a_teacher_that_changes_its_inputs_is_told_too():
    """It would change the student's between its forward and its backward pass."""
    splits = {"train": rows(0), "validation": rows(1), "test": rows(2)}
    (fault,) = faults_of(Task(name="tiny", model=Reads, teacher=Normalizes, **splits, pretrained=False))

    assert fault.message == "task.teacher must leave its inputs as they are, got changes in place of values"
