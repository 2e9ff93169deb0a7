"""A task's students become an axis of the spaces that prune and train."""

from __future__ import annotations

import pytest

from autocut.errors import FaultsError
from autocut.recipe import STUDENT, Recipe
from autocut.space import SpaceFile, load_space, parse_space, with_students
from tests.fakes import KNOWN

NAMES = ("narrow", "shallow")
OWN = """
schema_version = 1
[objectives]
accuracy = "maximize"
usd_per_million = "minimize"
[axes."prune.method"]
choices = ["none", "structured"]
[axes."prune.ratio"]
range = [0.2, 0.8]
step = 0.1
when."prune.method" = ["structured"]
[axes."train.epochs"]
choices = [0, 2]
[axes."model.student"]
choices = ["none", "narrow"]
when."train.epochs" = [2]
"""
NOT_PRUNED = 'when."prune.method" = ["none"]\n'


def parse(text):
    """Read a space for a task with two students."""
    return parse_space(SpaceFile("mine", text, "mine.toml"), {**KNOWN, STUDENT: ("none", *NAMES)})


def faults(text):
    """The messages of every fault of `text`."""
    with pytest.raises(FaultsError) as caught:
        parse(text)
    return [fault.message for fault in caught.value.faults]


@pytest.mark.parametrize("name", ["default", "quick"])
def test_a_space_that_prunes_and_trains_has_the_tasks_students(name):
    """A student is trained and never pruned; `train.epochs` has the task's own number, with all that goes with a training."""
    space = with_students(load_space(name, KNOWN), NAMES, epochs=30)
    full = {"train.epochs": 30, "train.lr_scale": 1.0, "distill.loss": "kl", "distill.temperature": 4.0, "distill.alpha": 0.9}

    assert space.axis(STUDENT).choices == ("none", *NAMES)
    assert space.contains(Recipe())
    assert space.contains(Recipe({STUDENT: "narrow", **full}))
    assert not space.contains(Recipe({STUDENT: "narrow"}))
    assert not space.contains(Recipe({STUDENT: "narrow", **full, "prune.method": "structured", "prune.ratio": 0.5}))


@pytest.mark.parametrize("name", ["deploy-only", "training-only"])
def test_a_space_without_cuts_or_training_stays_as_it_is(name):
    """It asks another question."""
    space = load_space(name, KNOWN)
    assert with_students(space, NAMES, epochs=30) is space


def test_a_task_without_students_changes_no_space():
    """Every study that was begun before goes on."""
    space = load_space("default", KNOWN)
    assert with_students(space, (), epochs=30) is space


def test_each_student_is_tried_once_with_a_teacher():
    """As long as the untouched model is trained, after the anchors that need no training."""
    anchors = with_students(load_space("default", KNOWN), NAMES, epochs=30).anchors
    own = [anchor for anchor in anchors if anchor.student]

    assert [(anchor.student, anchor["train.epochs"], anchor["distill.loss"]) for anchor in own] == [
        ("narrow", 30, "kl"),
        ("shallow", 30, "kl"),
    ]
    assert [anchor.is_trained for anchor in anchors] == sorted(anchor.is_trained for anchor in anchors)


def test_a_space_file_may_choose_among_the_students():
    """Its own axis stays as it is, and so does its number of epochs."""
    space = with_students(parse(OWN + NOT_PRUNED), NAMES, epochs=30)

    assert space.axis(STUDENT).choices == ("none", "narrow")
    assert space.axis("train.epochs").choices == (0, 2)
    assert [(anchor.student, anchor["train.epochs"]) for anchor in space.anchors] == [("narrow", 2)]


def test_an_unknown_student_is_a_fault():
    """With the names that there are."""
    assert faults(OWN.replace('"narrow"', '"narow"') + NOT_PRUNED) == [
        "model.student must be one of none, narrow, shallow, got 'narow'"
    ]


def test_a_student_that_could_be_pruned_is_a_fault():
    """Before it is trained, none of its weights is worth more than another."""
    assert faults(OWN) == ["model.student must be conditional on prune.method 'none': a student is not pruned"]
