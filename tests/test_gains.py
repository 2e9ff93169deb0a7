"""What a point gains: a ratio says whose dollars it compares and which timing it is from, and a small drop is no zero."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autocut.front import Final, FrontPoint
from autocut.gains import effect, metric_points, times
from autocut.measurement import Accuracy, Capacity, Cost, Interval, Latency, Layout, Measurement
from autocut.recipe import Recipe


def exactly(value):
    """An interval of no width."""
    return Interval(value, value, value)


def measured(accuracy, speedup, split="validation", capacity=None):
    """A measurement of a model that is so many times as fast as the untouched one."""
    latencies = tuple(Latency(size, 64, exactly(1.0), None, None, 1.0, exactly(speedup), 1.0) for size in (1, 32))
    cost = Cost(latencies, 1000, 900, 1, 10.0, "here")
    return Measurement(Accuracy(split, 100, exactly(accuracy)), cost, capacity=capacity)


def a_point(trial, accuracy, speedup, size=1000.0):
    """A point of the search."""
    values = {"accuracy": accuracy, "usd_per_million": 1 / speedup, "latency_ms": 1 / speedup, "size_bytes": size}
    settings = {} if trial == 0 else {"prune.method": "structured", "prune.ratio": 0.5}
    return FrontPoint(trial, Recipe(settings), values, measured(accuracy, speedup), trial == 0, None)


def finalized(point, speedup, capacity=None, split="test"):
    """The point with a final timing."""
    measurement = measured(0.9, speedup, split, capacity)
    return replace(point, final=Final(point.trial, point.values, measurement, None, None, verified=True, refusal=None))


def serving(own, untouched):
    """What the whole machine serves of a model and of the untouched one."""
    layouts = (
        tuple(Layout(copies, 1, exactly(per_s), 1000.0) for copies, per_s in ((1, 1.0), (2, best))) for best in (own, untouched)
    )
    return Capacity(32, 2, *layouts)


UNTOUCHED_POINT = a_point(0, 0.98, 1.0)
POINT = a_point(7, 0.97, 6.0, size=500.0)
VALIDATION = "accuracy 0.97 (-1.0 point) on validation"


def test_before_its_final_timing_a_ratio_is_of_one_process_in_the_search():
    """A point that was refused before its test has numbers of the search in `final`."""
    told = f"6x cheaper as one process in the search, {VALIDATION}"

    assert effect(POINT, UNTOUCHED_POINT, "usd_per_million") == told
    assert effect(finalized(POINT, 6.0, split="validation"), UNTOUCHED_POINT, "usd_per_million") == told


def test_two_ratios_of_money_say_which_is_which():
    """One process is charged with the whole machine; the other ratio is that of what the machine serves."""
    whole = finalized(POINT, 5.5, serving(8000.0, 2000.0))
    alone = finalized(POINT, 5.5)
    dearer = finalized(POINT, 5.5, serving(1000.0, 2000.0))

    search = "6x cheaper as one process in the search"
    final = "on the whole machine in the final timing"
    assert effect(whole, UNTOUCHED_POINT, "usd_per_million") == f"{search}, 4x cheaper {final}, {VALIDATION}"
    assert effect(dearer, UNTOUCHED_POINT, "usd_per_million") == f"{search}, 2x dearer {final}, {VALIDATION}"
    assert effect(alone, UNTOUCHED_POINT, "usd_per_million") == (
        f"{search}, 5.5x cheaper as one process in the final timing, {VALIDATION}"
    )


def test_a_ratio_that_both_timings_give_is_told_once():
    """It is that of one process both times."""
    told = effect(finalized(POINT, 6.02), UNTOUCHED_POINT, "usd_per_million")

    assert told == f"6x cheaper as one process in the search and in the final timing, {VALIDATION}"


def test_latency_has_two_timings_and_a_size_has_none():
    """A call is timed in one process both times."""
    point = finalized(POINT, 5.5, serving(8000.0, 2000.0))

    assert effect(point, UNTOUCHED_POINT, "latency_ms") == f"6x faster in the search, 5.5x faster in the final timing, {VALIDATION}"
    assert effect(point, UNTOUCHED_POINT, "size_bytes") == f"2x smaller, {VALIDATION}"


@pytest.mark.parametrize(
    ("drop", "told"),
    [
        (0.0, "0.0 points"),
        (1e-12, "0.0 points"),
        (1e-6, "0.0001 points"),
        (0.00015, "0.015 points"),
        (0.0006, "0.06 points"),
        (0.01, "1.0 point"),
        (0.0123, "1.23 points"),
    ],
)
def test_a_small_drop_is_told_in_enough_digits(drop, told):
    """`--max-accuracy-drop 0.0001%` is no "0.0 points"."""
    assert metric_points(drop, UNTOUCHED_POINT) == told


@pytest.mark.parametrize(("ratio", "told"), [(1.04, "1x"), (6.14, "6.1x"), (12.3, "12x"), (99.9, "100x"), (128.4, "128x")])
def test_a_large_ratio_has_no_exponent(ratio, told):
    """Of 128 only "1.3e+02x" was left."""
    assert times(ratio) == told


def test_nothing_can_be_lost_of_an_accuracy_of_zero_and_that_is_said():
    """Any cut of a model that answers everything wrong looks as good as it: "+0.0 points" alone would be no news."""
    told = effect(a_point(7, 0.0, 6.0), a_point(0, 0.0, 1.0), "usd_per_million")

    assert told.endswith("accuracy 0 (+0.0 points; the untouched model's is 0, so nothing can be lost) on validation")
    assert "nothing can be lost" not in effect(POINT, UNTOUCHED_POINT, "usd_per_million")
