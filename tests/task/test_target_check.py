"""Targets over whole splits: one target everywhere, and classes that train never has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocut.task.check import faults_of
from autocut.task.task import Task

ROWS = torch.randn(360, 4, generator=torch.Generator().manual_seed(0))
CLASSES = ROWS[:, :3].argmax(1)
SPLITS = ("train", "validation", "test")


def checked(targets, outputs=3, model=None, **settings):
    """A task whose splits are thirds of `targets`, and its faults."""
    parts = {name: (ROWS[at : at + 120], targets[at : at + 120]) for name, at in zip(SPLITS, (0, 120, 240), strict=True)}
    made = {"name": "tiny", "model": model or (lambda: nn.Linear(4, outputs)), **parts, **settings}
    task = Task(**{name: value for name, value in made.items() if value is not None})
    return task, [fault.message for fault in faults_of(task)]


def constant_in(name, targets):
    """The same targets, but for one split, where all are that of its first example."""
    start = 120 * SPLITS.index(name)
    changed = targets.clone()
    changed[start : start + 120] = targets[start]
    return changed


KINDS = {
    "classification": CLASSES,
    "multilabel": (ROWS[:, :3] > 0).float(),
    "regression": ROWS[:, :3],
    "rmse": ROWS[:, :3],
    "mae": ROWS[:, :3],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SPLITS)
def test_one_target_everywhere_is_a_fault_of_every_kind_and_split(kind, name):
    """A constant answer would be right; R2 is not even defined."""
    _, faults = checked(constant_in(name, KINDS[kind]), kind=kind)

    assert [fault for fault in faults if "more than one target" in fault] == faults
    assert len(faults) == 1
    assert faults[0].startswith(f"task.{name} must hold more than one target, got ")
    assert faults[0].endswith(" in all 120 examples")


def test_the_target_is_named_but_for_the_locked_split():
    """Of the test split nothing but this one fact is told."""
    targets = torch.full((360,), 2)

    assert [fault.partition(", got ")[2] for fault in checked(targets)[1]] == [
        "2 in all 120 examples", "2 in all 120 examples", "the same one in all 120 examples",
    ]  # fmt: skip


def test_varied_targets_are_no_fault_and_get_no_remark():
    """One example of another class is enough."""
    targets = torch.zeros(360, dtype=torch.long)
    targets[[5, 130, 250]] = 1
    task, faults = checked(targets)

    assert faults == []
    assert task.notes == ()


def test_functions_of_ones_own_may_need_no_targets():
    """A loss that compares the answers with the inputs, say."""
    own = {"loss": lambda outputs, targets: outputs.square().mean(), "metric": lambda outputs, targets: -outputs.square().mean(1)}

    assert checked(torch.zeros(360), **own)[1] == []


def sorted_by_class():
    """Train has two of three classes, validation the third too."""
    targets = CLASSES.clone()
    targets[:120] %= 2
    return targets


def test_a_class_of_validation_that_train_lacks_is_a_fault():
    """As files sorted by class give it."""
    targets = sorted_by_class()
    new = int((targets[120:240] == 2).sum())

    assert checked(targets)[1] == [f"task.validation must hold the classes of task.train, got {new} examples of class 2"]


def test_a_pretrained_model_may_know_classes_that_train_lacks():
    """Train may be a part of what it was trained with; the user is told."""
    task, faults = checked(sorted_by_class(), pretrained=True)

    assert faults == []
    assert len(task.notes) == 1
    assert "of class 2, which task.train never has" in task.notes[0]


def test_a_rare_class_is_a_remark():
    """One example of it has to be somewhere."""
    targets = CLASSES % 2
    targets[150] = 2
    task, faults = checked(targets)

    assert faults == []
    assert [note.partition(",")[0] for note in task.notes] == ["task.validation has 1 example of class 2"]


def test_a_validation_split_that_autocut_made_is_never_at_fault():
    """Its few examples of a rare class are autocut's choice."""
    targets = torch.arange(360) % 3
    targets[:120] = 0
    targets[:120:2] = 1
    targets[:3] = 2
    faults = checked(targets, validation=None)[1]

    assert faults == []
