"""The arithmetic of effects."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.attribution.effects import Effect, added, agree, combined, effect_between
from autocut.measurement import Interval

ONE = Interval(1.0, 1.0, 1.0)


def effect(accuracy=(0.0, 0.0, 0.0), speedup=(1.0, 1.0, 1.0), size=1.0, compressed=1.0):
    """An effect from tuples (value, low, high)."""
    return Effect(Interval(*accuracy), True, Interval(*speedup), size, compressed)


def test_the_interval_of_a_sum_covers_as_often_as_those_of_its_terms():
    """Simulated: 2000 sums of three noisy numbers."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, [1.0, 2.0, 0.5], (2000, 3))
    sums = [added([Interval(x, x - 1.96 * s, x + 1.96 * s) for x, s in zip(row, (1.0, 2.0, 0.5), strict=True)]) for row in noise]

    assert np.mean([total.low <= 0 <= total.high for total in sums]) == pytest.approx(0.95, abs=0.015)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 0.5)), min_size=1, max_size=5))
def test_factors_multiply_and_differences_add(parts):
    """The interval always holds the value."""
    listed = [effect((f, f - w, f + w), (f, f * (1 - w), f * (1 + w)), f, f) for f, w in parts]
    together = combined(listed)

    assert together.accuracy.value == pytest.approx(sum(f for f, _ in parts))
    assert together.speedup.value == pytest.approx(np.prod([f for f, _ in parts]))
    assert together.size == pytest.approx(together.speedup.value)
    assert together.speedup.low <= together.speedup.value * (1 + 1e-12)


def test_steps_multiply_to_the_whole(rung, settings):
    """Each begins where the last one ended."""
    first, second, third = rung({}), rung(settings.mode, speedup=2.0), rung(settings.mode | settings.dtype, speedup=5.0, size=250)
    steps = combined([effect_between(first, second, None), effect_between(second, third, None)])
    whole = effect_between(first, third, None)

    assert (steps.speedup.value, steps.size) == (pytest.approx(whole.speedup.value), whole.size)
    assert whole.speedup.value == pytest.approx(third.measurement.cost.busiest.speedup.value)


def test_a_timing_that_two_recipes_share_has_no_noise_against_itself(rung, settings):
    """Weights do not change the speed, so a trained model is not timed again."""
    before, after = rung(settings.prune, speedup=2.0), rung(settings.prune | settings.train, speedup=2.0, accuracy=0.99)

    assert effect_between(before, after, None).speedup == ONE
    assert effect_between(before, rung(settings.mode, speedup=2.02), None).is_speed_tie


def test_a_difference_is_paired_only_where_it_was_taken_on_the_same_examples(rung, settings):
    """With the untouched model it always was; what is not paired has a wider interval."""
    base, before, after = rung({}), rung(settings.mode), rung(settings.mode | settings.dtype, accuracy=0.975)
    given_pair = effect_between(before, after, Interval(-0.005, -0.006, -0.004))
    without = effect_between(before, after, None)

    assert (effect_between(base, after, None).is_paired, given_pair.is_paired, without.is_paired) == (True, True, False)
    assert (given_pair.is_accuracy_tie, without.is_accuracy_tie) == (False, True)
    unknown = replace(after, measurement=replace(after.measurement, accuracy=replace(after.measurement.accuracy, difference=None)))
    assert effect_between(before, unknown, None).accuracy.low < without.accuracy.low


@pytest.mark.parametrize(
    ("changed", "nothing"),
    [
        ({}, True),
        ({"accuracy": (0.01, -0.01, 0.03)}, True),
        ({"accuracy": (0.02, 0.01, 0.03)}, False),
        ({"speedup": (1.1, 0.99, 1.2)}, True),
        ({"speedup": (1.1, 1.05, 1.15)}, False),
        ({"speedup": (0.8, 0.7, 0.9)}, True),
        ({"compressed": 0.99}, True),
        ({"compressed": 0.7}, False),
    ],
)
def test_a_knob_bought_nothing_if_nothing_is_better_for_sure(changed, nothing):
    """What may be chance is not bought, and what is worse even less."""
    assert effect(**changed).buys_nothing == nothing


def test_more_comparisons_need_a_larger_gap():
    """Of many steps, one looks different by chance."""
    one, other = effect(speedup=(2.0, 1.9, 2.1)), effect(speedup=(2.16, 2.05, 2.27))

    assert not agree(one, effect(speedup=(3.0, 2.9, 3.1)), pairs=100)
    assert agree(one, other)
    assert not agree(one, effect(speedup=(2.19, 2.08, 2.30)))
    assert agree(one, effect(speedup=(2.19, 2.08, 2.30)), pairs=6)


def test_planted_equal_effects_are_seldom_told_apart():
    """500 ladders of 6 steps without an interaction: at most about 5% are said to have one."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(500):
        draws = rng.normal(0, 0.02, (6, 2, 2))
        sides = [
            [effect((a, a - 0.0392, a + 0.0392), tuple(np.exp([s, s - 0.0392, s + 0.0392]))) for a, s in pair] for pair in draws
        ]
        alarms += any(not agree(one, other, pairs=6) for one, other in sides)

    assert alarms <= 40
