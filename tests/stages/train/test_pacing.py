"""What every pacing function promises, run for every registered one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.stages.train import curricula, planned_sizes
from autocut.stages.train.plan import learning_rate_factor

every_schedule = pytest.mark.parametrize("name", curricula.names())
moments = st.floats(0, 1)
starts = st.floats(0.01, 1)


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
    ("name", "expected"), [("linear", 0.55), ("sqrt", 0.1 + 0.9 * 0.5**0.5), ("exponential", 0.1**0.5), ("step", 1.0)]
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
