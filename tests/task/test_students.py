"""Students of a task: smaller models of the user's own, and what may be wrong with them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from autocut.errors import TaskError
from autocut.task.check import faults_of
from autocut.task.task import Task


class Unpicklable(nn.Module):
    """A small model that cannot be stored."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.after = lambda x: x

    def forward(self, x):
        """Classes."""
        return self.after(self.layer(x))


class InPlace(nn.Linear):
    """A small model that changes its inputs."""

    def forward(self, x):
        """Classes, of inputs twice as large."""
        return super().forward(x.mul_(2))


def split(seed, count=60):
    """Examples of four numbers and three classes."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def make(students):
    """A small task with `students`; its model has 67 parameters."""
    model = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
    return Task(name="tiny", model=model, train=split(0), validation=split(1), test=split(2), students=students)


def narrow():
    """A model of 15 parameters."""
    return nn.Linear(4, 3)


FAULTS = {
    "task.students must be functions by name, got list": [narrow],
    "the name of a student must be letters, digits, '.', '_' or '-', got 'so small'": {"so small": narrow},
    "the name of a student must be letters, digits, '.', '_' or '-', got 3": {3: narrow},
    "the name of a student must not be 'none', which stands for the model itself": {"none": narrow},
    "task.students['narrow'] must be a function that builds a model, got the model itself": {"narrow": nn.Linear(4, 3)},
    "task.students['narrow'] must be a function, got int": {"narrow": 3},
    "task.students['narrow'] must be a function that builds a model, got ZeroDivisionError": {"narrow": lambda: 1 / 0},
    "task.students['narrow'] must return a torch.nn.Module, got int": {"narrow": lambda: 3},
    "task.students['narrow'] must run on a batch of train ((32, 4) float32), got RuntimeError": {"narrow": lambda: nn.Linear(5, 3)},
    "task.students['narrow'] must answer in the shape of the model (32, 3), got (32, 2)": {"narrow": lambda: nn.Linear(4, 2)},
    "task.students['narrow'] must leave its inputs as they are": {"narrow": lambda: InPlace(4, 3)},
    "task.students['narrow'] must have parameters that require grad, got none": {
        "narrow": lambda: nn.Linear(4, 3).requires_grad_(requires_grad=False)
    },
    "task.students['narrow'] must be picklable": {"narrow": Unpicklable},
    "task.students['wide'] must have fewer parameters than the model, 67, got 83": {
        "narrow": narrow,
        "wide": lambda: nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3)),
    },
}


@pytest.mark.parametrize("expected", FAULTS)
def test_a_fault_of_a_student_is_found_and_has_a_hint(expected):
    """In a task that is otherwise good: it is the only one."""
    (fault,) = faults_of(make(FAULTS[expected]))

    assert fault.message.startswith(expected)
    assert fault.hint


def test_every_faulty_student_is_told():
    """A user corrects a file in one go."""
    found = faults_of(make({"first": lambda: nn.Linear(5, 3), "second": lambda: nn.Linear(4, 2), "third": narrow}))
    assert ["first" in found[0].message, "second" in found[1].message, len(found)] == [True, True, 2]


def test_good_students_have_no_faults():
    """Of any form that answers as the model does."""
    assert faults_of(make({"narrow": narrow, "no.bias_2": lambda: nn.Linear(4, 3, bias=False)})) == []


def test_a_student_starts_from_the_tasks_seed():
    """So two workers build the same one, and its stage has the same key."""
    task = make({"narrow": narrow})
    first, second = task.build_student("narrow"), task.build_student("narrow")

    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert not first.training
    assert task.student_hash("narrow") == task.student_hash("narrow")
    assert task.student_hash("narrow") != dataclasses.replace(task, seed=1).student_hash("narrow")


def test_a_student_that_the_task_does_not_have_is_an_error():
    """With the names that there are."""
    with pytest.raises(TaskError, match="must have 'wide', got narrow"):
        make({"narrow": narrow}).build_student("wide")


def test_students_do_not_change_what_a_task_without_them_is():
    """Every stage of an older study is found again."""
    assert make(None).fingerprint == make({}).fingerprint
