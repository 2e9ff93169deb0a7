"""The first trainings of cuts: those that promise the most by what they cost and what they have kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autocut.measurement import Interval
from tests.search.conftest import MadeUp


class Gentle(MadeUp):
    """A world in which cuts lose a tenth of what they lose in the other one, so that the largest one can come back."""

    def measured(self, recipe):
        """See `MadeUp`."""
        found = super().measured(recipe)
        accuracy = found.measurement.accuracy
        value = 0.98 - (0.98 - accuracy.metric.value) / 10
        gentle = replace(accuracy, metric=Interval(value, value - 0.01, value + 0.01))
        return replace(found, measurement=replace(found.measurement, accuracy=gentle))


@pytest.fixture
def gentle(start):
    """Make a search in the gentle world: `gentle(space_name=...)`."""

    def make(**settings):
        machine = start(budget_s=1500.0, **settings)
        machine.world = Gentle()
        return machine

    return make


def recovered(machine):
    """Jobs that recover a cut, and what is proposed, in their order."""
    return [job for job in machine.jobs if job.why.startswith(("recover: ", "proposed: "))]


def test_the_cut_that_promises_the_most_is_trained_as_its_nearest_anchor_before_anything_is_proposed(gentle):
    """Of structured 0.25, 0.5, 0.75 and 0.95 without training, the last one is the cheapest, and has kept 0.89."""
    machine = gentle()
    machine.run()
    first = recovered(machine)[0]

    assert first.why.startswith("recover: structured 0.95 + 8 epochs lr x1 + distill kl T=4 alpha=0.9, whose cut has kept 0.8")
    assert first.recipes[0].prefix in machine.searcher.state.trained


def test_no_cut_is_recovered_twice(gentle):
    """The second one counts what the first one is expected to reach."""
    machine = gentle()
    machine.run()
    prefixes = [job.recipes[0].prefix for job in recovered(machine) if job.why.startswith("recover: ")]

    assert prefixes
    assert len(set(prefixes)) == len(prefixes)


def test_a_space_that_trains_nothing_recovers_nothing(gentle):
    """There is no anchor with a training."""
    machine = gentle(space_name="deploy-only")
    machine.run()

    assert not [job for job in machine.jobs if job.why.startswith("recover: ")]


def test_where_the_noise_of_the_split_is_larger_than_every_loss_nothing_is_recovered(gentle):
    """Nothing says that such a cut has lost anything."""
    machine = gentle()
    state = machine.searcher.state
    set_baseline = state.set_baseline

    def with_much_noise(metric):
        set_baseline(metric)
        state.metric_noise = 1.0

    state.set_baseline = with_much_noise
    machine.run()

    assert not [job for job in machine.jobs if job.why.startswith("recover: ")]
