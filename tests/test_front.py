"""The front, compared with brute force and Monte Carlo."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocut.errors import NoResultError
from autocut.front import (
    FrontPoint,
    hypervolume,
    hypervolume_contributions,
    knee,
    non_dominated,
    objective_signs,
    reference_point,
    with_ties,
)
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe

TWO = {"accuracy": "maximize", "usd_per_million": "minimize"}
THREE = {**TWO, "size_bytes": "minimize"}
NAMES = tuple(THREE)

# Few distinct values, so that equal ones and ties in one objective are common.
VALUES = st.lists(st.tuples(*[st.integers(0, 6).map(lambda value: value / 2)] * 3), max_size=25)


def a_point(trial, *values, speedup=None, difference=None, p_value=None, split="test", ratio=None, spread=0.0):
    """A point whose intervals reach `spread` to both sides; a distinct recipe unless `ratio` is 0."""
    named = dict(zip(NAMES, values, strict=False))
    accuracy = named["accuracy"]
    around = None if difference is None else Interval(difference, difference - spread, difference + spread)
    measured = Accuracy(split, 100, Interval(accuracy, accuracy - spread, accuracy + spread), around, p_value)
    faster = Interval(*[(speedup or trial + 1.0) * (1 + side * spread) for side in (0, -1, 1)])
    latencies = tuple(Latency(size, 64, Interval(1, 1, 1), None, None, 1.0, faster, 1.0) for size in (1, 32))
    recipe = Recipe() if ratio == 0 else Recipe({"prune.method": "structured", "prune.ratio": ratio or 0.01 * (trial + 1)})
    return FrontPoint(
        trial, recipe, named, Measurement(measured, Cost(latencies, 1, 1, 1, 1.0, "test")), is_baseline=ratio == 0, bundle=None
    )


def points_of(rows):
    """Points numbered in order."""
    return [a_point(trial, *row) for trial, row in enumerate(rows)]


def losses(point, objectives):
    """Lower is better."""
    return [-point.values[name] if way == "maximize" else point.values[name] for name, way in objectives.items()]


def beats(one, other, objectives):
    """The definition, written out."""
    pairs = list(zip(losses(one, objectives), losses(other, objectives), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@pytest.mark.parametrize("objectives", [TWO, THREE])
@given(rows=VALUES)
@settings(max_examples=60, deadline=None)
def test_the_front_is_what_nothing_beats(objectives, rows):
    """Oracle: compare every pair by the definition."""
    points = points_of(rows)
    expected = [point.trial for point in points if not any(beats(other, point, objectives) for other in points)]
    assert [point.trial for point in non_dominated(points, objectives)] == expected


@given(rows=VALUES)
@settings(max_examples=40, deadline=None)
def test_two_dimensional_volume_is_a_sum_of_cells(rows):
    """Oracle: the values lie on a grid, so count the grid's cells that some point covers."""
    points = points_of(rows)
    reference = {"accuracy": -1.0, "usd_per_million": 4.0}
    step = 0.5
    cells = itertools.product(np.arange(-1.0, 3.0, step) + step / 2, np.arange(0.0, 4.0, step) + step / 2)
    covered = sum(any(p.values["accuracy"] >= x and p.values["usd_per_million"] <= y for p in points) for x, y in cells)
    assert hypervolume(points, TWO, reference) == pytest.approx(covered * step**2)


def test_three_dimensional_volume_agrees_with_throwing_darts():
    """Oracle: Monte Carlo, 200,000 darts, four standard errors."""
    rng = np.random.default_rng(0)
    points = points_of(rng.uniform(size=(12, 3)))
    darts = rng.uniform(size=(200_000, 3))
    rows = np.array([[p.values[name] for name in THREE] for p in points])
    hit = np.zeros(len(darts), dtype=bool)
    for row in rows:
        hit |= (darts[:, 0] <= row[0]) & (darts[:, 1] >= row[1]) & (darts[:, 2] >= row[2])
    share = hit.mean()
    found = hypervolume(points, THREE, {"accuracy": 0.0, "usd_per_million": 1.0, "size_bytes": 1.0})
    assert found == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(darts)))


def test_points_beyond_the_reference_add_nothing():
    """They neither add nor remove volume."""
    inside, outside = a_point(0, 0.5, 1.0), a_point(1, 0.9, 100.0)
    reference = {"accuracy": 0.0, "usd_per_million": 2.0}
    assert hypervolume([inside, outside], TWO, reference) == hypervolume([inside], TWO, reference) == pytest.approx(0.5)
    assert hypervolume([], TWO, reference) == 0


@given(rows=VALUES.filter(bool))
@settings(max_examples=40, deadline=None)
def test_a_contribution_is_what_is_lost_without_the_point(rows):
    """Oracle: the volume with and without the point, as a share of the box."""
    points = points_of(rows)
    corner = reference_point(points, TWO)
    sides = [abs(corner[name] - (max if way == "maximize" else min)(p.values[name] for p in points)) for name, way in TWO.items()]
    whole = hypervolume(points, TWO, corner)
    found = hypervolume_contributions(points, TWO)
    for point in points:
        without = hypervolume([other for other in points if other is not point], TWO, corner)
        assert found[point.trial] == pytest.approx((whole - without) / np.prod(sides), abs=1e-9)


def test_everything_is_better_than_the_reference():
    """Otherwise the ends of the front would not count; a single point counts too."""
    points = points_of([(0.9, 5.0, 3.0), (0.5, 1.0, 3.0)])
    corner = reference_point(points, THREE)
    assert corner["accuracy"] < 0.5
    assert corner["usd_per_million"] > 5
    assert corner["size_bytes"] > 3
    assert hypervolume_contributions(points[:1], TWO)[0] == pytest.approx(1)
    with pytest.raises(NoResultError):
        reference_point([], TWO)


def test_the_knee_is_where_the_next_saving_costs_most():
    """From 10 to 2 dollars for one point of accuracy, then ten points for the last dollar."""
    points = points_of([(0.95, 10.0), (0.945, 5.0), (0.94, 2.0), (0.84, 1.0)])
    assert knee(points, TWO).trial == 2


@given(st.floats(0.1, 1000), st.floats(0.1, 1000), st.floats(-5, 5))
def test_the_knee_does_not_depend_on_units(stretch, price, shift):
    """Dollars or cents, shares or percent."""
    rows = [(0.0, 0.0), (0.55, 0.2), (0.9, 0.6), (1.0, 1.0)]
    scaled = points_of([(stretch * a + shift, price * b) for a, b in rows])
    assert knee(scaled, TWO).trial == 1


def test_beaten_points_are_never_the_knee_and_a_line_has_none():
    """On a straight front the first objective decides; a beaten point inside does not."""
    line = points_of([(1.0, 3.0), (0.5, 2.0), (0.0, 1.0), (0.2, 2.9)])
    assert knee(line, TWO).trial == 0
    assert knee(line[1:2], TWO).trial == 1
    with pytest.raises(NoResultError):
        knee([], TWO)


def test_signs_turn_values_into_losses():
    """Lower is better on every objective; the order is that of the objectives."""
    assert objective_signs({"size_bytes": "minimize", "accuracy": "maximize"}).tolist() == [1.0, -1.0]


@given(st.lists(st.floats(0.5, 9), min_size=4, max_size=4))
def test_two_speeds_are_tied_where_their_intervals_share_a_point(ends):
    """Oracle: if there is a common point, the larger of the two low ends is in both."""
    intervals = [Interval(low, low, high) for low, high in (sorted(ends[:2]), sorted(ends[2:]))]
    points = [a_point(trial, 0.9, 1.0) for trial in (0, 1)]
    for point, interval in zip(points, intervals, strict=True):
        latencies = tuple(replace(latency, speedup=interval) for latency in point.measurement.cost.latencies)
        cost = replace(point.measurement.cost, latencies=latencies)
        points[point.trial] = replace(point, measurement=replace(point.measurement, cost=cost))
    common = max(interval.low for interval in intervals)

    tied = all(common <= interval.high for interval in intervals)
    assert [point.ties for point in with_ties(points, TWO)] == ([(1,), (0,)] if tied else [(), ()])


def test_ties_need_overlap_on_every_objective():
    """0 and 1 overlap everywhere, 2 is faster beyond doubt, 3 is less accurate beyond doubt."""
    points = [
        a_point(0, 0.90, 1.000, speedup=2.00, difference=-0.010, spread=0.02),
        a_point(1, 0.89, 0.995, speedup=2.01, difference=-0.020, spread=0.02),
        a_point(2, 0.88, 0.500, speedup=4.00, difference=-0.030, spread=0.02),
        a_point(3, 0.70, 0.499, speedup=4.01, difference=-0.210, spread=0.02),
    ]
    assert [point.ties for point in non_dominated(points, TWO)] == [(1,), (0,), (), ()]


def test_against_the_untouched_model_the_paired_test_decides():
    """The accuracy intervals are wide, but the test on the same examples finds the difference."""

    def pair(p_value):
        untouched = a_point(0, 0.90, 1.0, speedup=1.0, difference=0.0, p_value=1.0, spread=0.05, ratio=0)
        other = a_point(1, 0.89, 0.99, speedup=1.01, difference=-0.01, p_value=p_value, spread=0.05)
        return [point.ties for point in non_dominated([untouched, other], TWO)]

    assert pair(0.2) == [(1,), (0,)]
    assert pair(0.01) == [(), ()]


def test_numbers_without_an_interval_are_tied_only_when_equal():
    """A file size has no spread."""
    same = [a_point(0, 0.9, 1.0, 5.0, speedup=1.0), a_point(1, 0.9, 1.0, 5.0, speedup=1.0)]
    other = [same[0], a_point(2, 0.9, 1.0, 4.9, speedup=1.0)]
    assert [point.ties for point in non_dominated(same, THREE)] == [(1,), (0,)]
    assert [point.trial for point in non_dominated(other, THREE)] == [2]


def test_different_splits_are_never_tied():
    """Validation and test examples differ, so their numbers cannot be compared."""
    points = [a_point(0, 0.9, 1.0, speedup=1.0), a_point(1, 0.9, 1.0, speedup=1.0, split="validation")]
    assert [point.ties for point in non_dominated(points, TWO)] == [(), ()]


def test_values_that_are_no_numbers_are_never_on_the_front():
    """Nothing beats NaN, but it must not win."""
    points = [a_point(0, 0.9, float("nan")), a_point(1, 0.8, 1.0), a_point(2, 0.99, float("inf"))]
    assert [point.trial for point in non_dominated(points, TWO)] == [1]
    assert hypervolume_contributions(points, TWO)[0] == 0
    assert non_dominated(points[:1], TWO) == []


def test_a_paired_test_overrules_the_intervals():
    """They overlap, but the scores tell the two apart; points without a test keep theirs. The cost decides nothing here."""
    points = [a_point(0, 0.90, 2.0, difference=0.0, spread=0.02), a_point(1, 0.89, 1.0, difference=-0.01, spread=0.02)]

    assert [point.accuracy_ties for point in with_ties(points, TWO)] == [(1,), (0,)]
    assert [point.accuracy_ties for point in with_ties(points, TWO, {(0, 1): 0.04})] == [(), ()]
    assert [point.accuracy_ties for point in with_ties(points, TWO, {(0, 1): 0.06, (1, 7): 0.0})] == [(1,), (0,)]
