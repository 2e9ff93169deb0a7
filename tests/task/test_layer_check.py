"""Layers that a task names for distillation, and what may be wrong with them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from autocut.task.check import faults_of
from autocut.task.task import Task


class Net(nn.Module):
    """A model of two layers that it calls, one that it does not, and two whose outputs cannot be compared."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body, self.head, self.spare = nn.Linear(4, width), nn.Linear(width, 3), nn.Linear(4, 3)
        self.turned, self.told = Turned(), Told()

    def forward(self, x: Tensor) -> Tensor:
        """Classes."""
        self.told(self.turned(x))
        return self.head(self.body(x))


class Turned(nn.Module):
    """Puts the examples last."""

    def forward(self, x: Tensor) -> Tensor:
        """Transpose."""
        return x.T


class Told(nn.Module):
    """Gives no tensor."""

    def forward(self, x: Tensor) -> str:
        """Say the shape."""
        return str(x.shape)


class Small(nn.Module):
    """A student with other names."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.end = nn.Linear(4, 2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Classes."""
        return self.end(self.start(x))


def split(seed: int, count: int = 60) -> tuple[Tensor, Tensor]:
    """Examples of four numbers and three classes."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def make(features, **changes) -> Task:
    """A small task that names layers."""
    settings = {"name": "tiny", "model": Net, "train": split(0), "validation": split(1), "test": split(2), "pretrained": True}
    return Task(**{**settings, "features": features, **changes})


FAULTS = {
    "task.features must map layers to layers of the teacher, got ['body']": (["body"], "features="),
    "task.features must map layers to layers of the teacher, got {}": ({}, "features="),
    "task.features must map names of layers to names of layers, got 'body': 3": ({"body": 3}, "features="),
    "task.features must map names of layers to names of layers, got '': 'body'": ({"": "body"}, "features="),
    "task.features must name layers of the model, got 'bodi'": ({"bodi": "body"}, "did you mean 'body'?"),
    "task.features must name layers of the model, got 'xyz'": ({"body": "xyz"}, "layers are body, head, spare, told"),
    "task.features must name layers that the model calls, got 'spare'": ({"spare": "body"}, "is called"),
    "task.features must name layers that give the 32 examples first, got 'turned' of the model with the shape (4, 32)": (
        {"turned": "body"},
        "shape (n, ...)",
    ),
    "task.features must name layers that give the 32 examples first, got 'told' of the model with no tensor": (
        {"told": "body"},
        "shape (n, ...)",
    ),
}


@pytest.mark.parametrize("expected", FAULTS)
def test_a_fault_of_a_named_layer_is_found_and_has_a_hint(expected):
    """In a task that is otherwise good: it is the only one."""
    features, hint = FAULTS[expected]
    (fault,) = faults_of(make(features))

    assert fault.message == expected
    assert hint in fault.hint


def test_layers_may_be_of_students_and_of_a_teacher():
    """A name must be of one of those that are trained; the other one of the teacher's."""
    models = {"students": {"small": Small}, "teacher": lambda: Net(16)}

    assert faults_of(make({"body": "body", "start": "body"}, **models)) == []
    found = [fault.message for fault in faults_of(make({"strat": "body", "start": "bodi", "end": "spare"}, **models))]
    assert found == [
        "task.features must name layers of the model or of a student, got 'strat'",
        "task.features must name layers of the teacher, got 'bodi'",
        "task.features must name layers that the teacher calls, got 'spare'",
    ]


def test_named_layers_are_part_of_the_fingerprint():
    """Trainings that compare other layers are others; a task without keeps the fingerprint that it had."""
    task = make({"body": "body"})
    others = [dataclasses.replace(task, features=features) for features in (None, {"body": "head"}, {"body": "body"})]

    assert [other.fingerprint == task.fingerprint for other in others] == [False, False, True]
