"""In which way a study trains: as it was begun, as it is asked to, or as is fastest."""

from __future__ import annotations

import pytest

from autocut.errors import DivergedError
from autocut.execution.tried_devices import AskedTraining, choose_training
from autocut.precision import PRECISIONS, TrainingWay
from autocut.stages import train
from autocut.task.loading import load_task
from tests import second_device

FAST = TrainingWay("bf16", "channels_last", 2.0, 0.1)
AUTO = AskedTraining(precision="auto")


@pytest.fixture
def task(small_task_file):
    """A small task."""
    return load_task(small_task_file)


@pytest.fixture
def timed(monkeypatch):
    """The precisions that may be chosen, for each time that ways of training are timed."""
    asked = []
    monkeypatch.setattr(
        train, "fastest_way", lambda task, kind, precisions, most_s: asked.append((kind, tuple(precisions))) or FAST
    )
    return asked


@pytest.mark.parametrize(
    ("asked", "may_be"), [(AUTO, PRECISIONS), (AskedTraining(), ("fp32",)), (AskedTraining(precision="bf16"), ("bf16",))]
)
def test_a_new_study_trains_in_the_fastest_way_that_it_is_asked_for(timed, task, asked, may_be):
    """The layout is always open."""
    assert choose_training(asked, task, None) == FAST
    assert timed == [("cpu", may_be)]


def test_a_study_goes_on_as_it_was_begun(timed, task):
    """One of an earlier autocut in the plain way. What is asked for otherwise is refused later, by its conditions."""
    begun = {"threads": 1, "train_precision": "bf16", "train_memory_format": "channels_last"}

    assert choose_training(AUTO, task, begun) == TrainingWay("bf16", "channels_last")
    assert choose_training(AUTO, task, {"threads": 1}) == TrainingWay()
    assert choose_training(AskedTraining(precision="bf16"), task, {"threads": 1}) == TrainingWay("bf16")
    assert timed == []


@pytest.mark.parametrize("elsewhere", [{"is_here": False}, {"kind": second_device.KIND}], ids=["a cluster", "a GPU"])
def test_auto_is_the_plain_way_elsewhere(timed, task, elsewhere):
    """This processor says nothing about another."""
    assert choose_training(AskedTraining(precision="auto", **elsewhere), task, None) == TrainingWay()
    assert timed == []


def test_a_model_that_diverges_is_told_by_its_training(monkeypatch, task):
    """Not by a probe of a few examples."""

    def diverge(*_):
        raise DivergedError("the training loss must be finite, got nan")

    monkeypatch.setattr(train, "fastest_way", diverge)

    assert choose_training(AUTO, task, None) == TrainingWay()
