"""What every pacing function promises, run for every registered one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.stages.train import curricula, planned_sizes
from autocut.stages.train.plan import draw_epoch, learning_rate_factor

every_schedule = pytest.mark.parametrize("name", curricula.names())
moments = st.floats(0, 1)
starts = st.floats(0.01, 1)


def draw_all(settings: dict[str, object], order: np.ndarray, batch_size: int) -> np.ndarray:
    """Every sample of a training, in order."""
    sizes = planned_sizes(settings, len(order), batch_size)
    return np.concatenate(
        [
            draw_epoch(number, settings, order, sizes, batch_size, np.random.default_rng(number))
            for number in range(1, len(sizes) + 1)
        ]
    )


@every_schedule
@given(moments, moments, starts)
def test_pacing_never_takes_data_away(name, one, other, start):
    """Later means as much or more."""
    earlier, later = sorted((one, other))
    assert curricula[name](earlier, start) <= curricula[name](later, start)


@every_schedule
@given(moments, starts)
def test_pacing_stays_between_its_start_and_all(name, progress, start):
    """A fraction of the data, never less than where it starts."""
    assert start - 1e-12 <= curricula[name](progress, start) <= 1


@every_schedule
@given(starts)
def test_pacing_ends_with_all_the_data(name, start):
    """The end of a training sees every example."""
    assert curricula[name](1.0, start) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", 0.55),
        ("sqrt", 0.1 + 0.9 * 0.5**0.5),
        ("exponential", 0.1**0.5),
        ("step", 1.0),
        ("quadratic", 0.325),
        ("logarithmic", 0.1 + 0.9 * (1 + 0.1 * math.log(0.5 + math.exp(-10)))),
    ],
)
def test_pacing_halfway_to_full_data(name, expected):
    """The published formulas, at the middle of the ramp (0.4 of the training)."""
    assert curricula[name](0.4, 0.1) == pytest.approx(expected)


@every_schedule
def test_a_curriculum_plans_fewer_samples(name):
    """Spared examples are spared steps; without a curriculum every epoch sees everything."""
    sizes = planned_sizes({"train.epochs": 8, "curriculum.schedule": name, "curriculum.start": 0.2}, 1000, 32)

    assert len(sizes) == 8
    assert (sum(sizes) < 8000) == (name != "none")
    assert sizes[-1] == 1000


@pytest.mark.parametrize("epochs", [1, 2, 5])
@pytest.mark.parametrize("name", [name for name in curricula.names() if name != "none"])
def test_even_a_short_curriculum_begins_easy_and_ends_with_everything(name, epochs):
    """Progress is counted in samples, not epochs: one epoch is enough for the whole ramp."""
    drawn = draw_all({"train.epochs": epochs, "curriculum.schedule": name, "curriculum.start": 0.3}, np.arange(1000), 10)
    last = drawn[-len(drawn) // 5 :]

    in_use = curricula[name](10 / len(drawn), 0.3)
    assert in_use < 0.7
    assert drawn[:10].max() < 1000 * in_use + 10
    assert last.max() > 950
    assert len(drawn) < epochs * 1000


@given(st.sampled_from(curricula.names()), st.integers(1, 400), st.integers(1, 80), st.integers(1, 4), starts)
def test_an_epoch_draws_only_what_is_in_use(name, examples, batch_size, epochs, start):
    """The oracle asks the pacing function at the sample's own progress, plus the width of a piece."""
    settings = {"train.epochs": epochs, "curriculum.schedule": name, "curriculum.start": start}
    drawn = draw_all(settings, np.arange(examples), batch_size)
    progress = np.arange(len(drawn)) / len(drawn) + batch_size / len(drawn)
    in_use = [max(batch_size, round(curricula[name](min(1.0, moment), start) * examples)) for moment in progress]

    assert len(drawn) == sum(planned_sizes(settings, examples, batch_size))
    assert (drawn < np.array(in_use)).all()


def test_an_order_and_its_control_bring_in_as_many_examples_at_every_moment():
    """Otherwise a gain of the order would be a gain of less data: only the names of the examples differ."""
    settings = {"train.epochs": 2, "curriculum.schedule": "linear", "curriculum.start": 0.2}
    control = np.random.default_rng(5).permutation(500)

    np.testing.assert_array_equal(draw_all(settings, control, 32), control[draw_all(settings, np.arange(500), 32)])


def test_no_example_returns_while_another_waits():
    """A step keeps the first 40% of the training among 300 examples: they take turns."""
    settings = {"train.epochs": 1, "curriculum.schedule": "step", "curriculum.start": 0.3}
    drawn = draw_all(settings, np.arange(1000), 10)
    _, times = np.unique(drawn, return_counts=True)

    assert sorted(drawn[:280]) == sorted(set(drawn[:280]))
    assert times.max() <= 2


@given(st.integers(1, 500), st.integers(1, 80), st.integers(1, 3))
def test_without_a_curriculum_an_epoch_is_a_permutation(examples, batch_size, epochs):
    """Every example once, but for a last batch of one."""
    drawn = draw_all({"train.epochs": epochs}, np.arange(examples), batch_size).reshape(epochs, -1)

    for epoch in drawn:
        assert len(set(epoch)) == len(epoch) >= examples - 1


@given(st.integers(1, 10_000), st.integers(1, 600), st.integers(0, 12), starts)
def test_planned_sizes_leave_no_batch_of_one(examples, batch_size, epochs, start):
    """Batch normalization cannot train on one example."""
    sizes = planned_sizes(
        {"train.epochs": epochs, "curriculum.schedule": "linear", "curriculum.start": start}, examples, batch_size
    )

    assert len(sizes) == epochs
    assert all(1 <= size <= examples for size in sizes)
    assert all(size % batch_size != 1 for size in sizes if size > 1 and batch_size > 1)


def test_the_learning_rate_rises_and_then_falls_to_nothing():
    """A short warm-up, then a cosine."""
    factors = [learning_rate_factor(seen, 1000) for seen in range(0, 1001, 10)]

    assert factors[0] == 0
    assert max(factors) == 1
    assert factors.index(1.0) == 5
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[-1] == pytest.approx(0)
