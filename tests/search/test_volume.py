"""The hypervolume that a search enlarges."""

from __future__ import annotations

import math

import pytest

from autocut.search.volume import ACCURACY_RANGE, Volume

OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize"}
UNTOUCHED = {"accuracy": 0.8, "usd_per_million": 2.0}


@pytest.fixture
def volume():
    """Two objectives, seen from an untouched model."""
    return Volume(OBJECTIVES, UNTOUCHED)


def test_one_point_covers_its_rectangle(volume):
    """A tenth of the metric kept, times the logarithm of how much cheaper."""
    losses = volume.losses({"accuracy": 0.8, "usd_per_million": 0.5})

    assert volume.of([losses]) == pytest.approx(1.0 * math.log(4))


def test_what_is_no_alternative_adds_nothing(volume):
    """More expensive than the untouched model, or a tenth of its metric behind it."""
    costlier = volume.losses({"accuracy": 0.9, "usd_per_million": 2.5})
    worse = volume.losses({"accuracy": 0.8 * (1 - ACCURACY_RANGE), "usd_per_million": 0.1})

    assert volume.of([costlier, worse]) == pytest.approx(0, abs=1e-9)


def test_where_the_untouched_model_costs_nothing_the_dearest_seen_is_the_corner():
    """A model that came with its weights cost nothing to train: everything else would add nothing."""
    objectives = {"accuracy": "maximize", "train_usd": "minimize"}
    untouched, trained = {"accuracy": 0.8, "train_usd": 0.0}, {"accuracy": 0.84, "train_usd": 2.0}
    volume = Volume(objectives, untouched, seen=[untouched, trained])

    free = volume.of([volume.losses(untouched)])
    assert free == pytest.approx(1.0)
    assert volume.of([volume.losses(untouched), volume.losses(trained)]) == pytest.approx(free + 0.5 * (1 - 2.0 / 3.0))


def test_a_factor_counts_the_same_everywhere(volume):
    """From 1 to 1/2 is worth what from 1/5 to 1/10 is."""
    cost = [volume.of([volume.losses({"accuracy": 0.8, "usd_per_million": 2.0 / factor})]) for factor in (1.0001, 2, 5, 10)]

    assert cost[1] - cost[0] == pytest.approx(cost[3] - cost[2], abs=1e-3)


def test_what_would_be_lost_without_a_point(volume):
    """Two points share a part of their rectangles; a third that lost too much adds nothing, and takes nothing from them."""
    points = [
        volume.losses({"accuracy": 0.80, "usd_per_million": 1.0}),
        volume.losses({"accuracy": 0.76, "usd_per_million": 0.5}),
        volume.losses({"accuracy": 0.40, "usd_per_million": 0.1}),
    ]
    first, second, third = volume.contributions(points)

    assert first == pytest.approx(0.5 * math.log(2))
    assert second == pytest.approx(0.5 * math.log(2))
    assert third == pytest.approx(0)
