"""The three named picks: rules on small fronts, and what must hold on any."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from autocut.front import FrontPoint, non_dominated
from autocut.gains import with_untouched
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.picks import PICKS, named_picks, told_once
from autocut.recipe import Recipe

OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize"}


def a_point(trial, accuracy, cost, accuracy_ties=(), bundle=None):
    """A point; trial 0 is the untouched model."""
    recipe = Recipe({} if trial == 0 else {"prune.method": "structured", "prune.ratio": trial / 1000})
    speedup = Interval(1 / cost, 1 / cost, 1 / cost)
    latency = Latency(1, 64, Interval(cost, cost, cost), None, None, cost, speedup, 1.0)
    measured = Accuracy("validation", 100, Interval(accuracy, accuracy, accuracy))
    measurement = Measurement(measured, Cost((latency,), 1, 1, 1, 1.0, "here"))
    values = {"accuracy": accuracy, "usd_per_million": cost}
    return FrontPoint(trial, recipe, values, measurement, trial == 0, bundle, (), None, tuple(accuracy_ties))


def picked(points, allowed_drop=0.05):
    """The trials of the picks."""
    return [pick.point.trial for pick in named_picks(points, OBJECTIVES, allowed_drop)]


FRONT = [
    a_point(at, accuracy, cost)
    for at, (accuracy, cost) in enumerate([(0.98, 8.0), (0.9795, 6.0), (0.978, 2.0), (0.971, 1.8), (0.95, 1.0), (0.8, 0.5)])
]


def test_quality_keeps_and_the_others_are_the_cheapest_within_a_point_and_within_what_is_allowed():
    """One front, three answers, each with its reason in one sentence."""
    picks = named_picks(FRONT, OBJECTIVES, 0.05)

    assert [(pick.name, pick.point.trial) for pick in picks] == [("quality", 1), ("balanced", 3), ("compact", 4)]
    assert picks[0].reason == (
        "the most accurate cut: 1.3x cheaper as one process in the search, accuracy 0.9795 (-0.05 points) on validation"
    )
    assert picks[1].reason.startswith("the cheapest within 1.0 point of the untouched model: 4.4x cheaper")
    assert picks[2].reason.startswith("the cheapest within 5.0 points of the untouched model: 8x cheaper")
    assert picked(FRONT, allowed_drop=None)[2] == 5


def test_quality_is_the_cheapest_of_those_that_lose_nothing_and_are_tied_with_the_best():
    """Trial 3 is tied too, but it loses 3 points: a tie among few examples is no proof."""
    points = [
        a_point(0, 0.98, 8.0, [1, 2, 3]),
        a_point(1, 0.99, 4.0, [0, 2, 3]),
        a_point(2, 0.985, 2.0, [1]),
        a_point(3, 0.95, 1.0, [1]),
    ]
    quality = named_picks(points, OBJECTIVES)[0]

    assert quality.point.trial == 2
    assert quality.reason == (
        "the cheapest of 2 cuts that lose nothing and are not told apart from the most accurate one: "
        "4x cheaper as one process in the search, accuracy 0.985 (+0.5 points) on validation, "
        "not told apart from the untouched model"
    )


def test_what_has_a_verified_bundle_comes_first():
    """Only that can be taken away at once."""
    points = [*FRONT[:3], replace(FRONT[3], bundle="bundles/3"), *FRONT[4:]]

    assert picked(points) == [3, 3, 3]


def test_a_reason_says_that_only_cuts_with_a_verified_bundle_were_compared():
    """Trial 4 is cheaper, but has none: "the cheapest" alone would be wrong."""
    points = [*FRONT[:2], *(replace(point, bundle=f"bundles/{point.trial}") for point in FRONT[2:4]), *FRONT[4:]]
    quality, balanced, compact = named_picks(points, OBJECTIVES, 0.05)

    assert quality.reason.startswith("the most accurate cut with a verified bundle: ")
    assert balanced.reason.startswith("the cheapest with a verified bundle within 1.0 point of the untouched model: ")
    assert compact.reason.startswith("the cheapest with a verified bundle within 5.0 points of the untouched model: ")
    far = [FRONT[0], FRONT[1], replace(FRONT[5], bundle="bundles/5")]
    assert "no cut with a verified bundle is within 1.0 point of it" in named_picks(far, OBJECTIVES, 0.05)[1].reason


def test_the_untouched_model_is_not_recommended_without_the_cheaper_model_that_only_lacks_a_bundle():
    """Trial 4 loses half a point and could be exported: "keep the untouched model" alone would hide it."""
    points = [FRONT[0], a_point(4, 0.975, 1.0), replace(FRONT[5], bundle="bundles/5")]
    quality, balanced, compact = named_picks(points, OBJECTIVES)

    assert [pick.point.trial for pick in (quality, balanced, compact)] == [0, 0, 5]
    assert "; trial 4 only lacks a verified bundle, which autocut export makes: 8x cheaper" in balanced.reason
    assert "lacks" not in quality.reason + compact.reason
    tied = [replace(FRONT[0], ties=(4,)), *points[1:]]
    assert "lacks" not in named_picks(tied, OBJECTIVES)[1].reason


def test_where_no_cut_costs_less_every_pick_is_the_untouched_model():
    """Nothing was won."""
    picks = named_picks([a_point(0, 0.9, 1.0), a_point(1, 0.95, 2.0)], OBJECTIVES)

    assert {(pick.point.trial, pick.reason) for pick in picks} == {(0, "the untouched model itself: no cut is cheaper")}
    assert named_picks([a_point(1, 0.9, 1.0)], OBJECTIVES) == ()


def test_where_every_cut_loses_much_the_untouched_model_is_balanced_and_the_reasons_say_so():
    """A name promises nothing that the front does not have, and quality is never less accurate than balanced."""
    quality, balanced, compact = named_picks([FRONT[0], FRONT[5]], OBJECTIVES, 0.05)

    assert [pick.point.trial for pick in (quality, balanced, compact)] == [0, 0, 5]
    assert "no cut is within 1.0 point of it; trial 5 loses least, 16x cheaper" in balanced.reason
    assert "every cut is less accurate" in quality.reason
    assert "loses least, none being within 5.0 points" in compact.reason


def test_balanced_loses_no_more_than_the_search_allowed():
    """Else it would be cheaper than compact."""
    assert picked(FRONT, allowed_drop=0.002) == [1, 2, 2]


def test_of_tied_points_the_most_accurate_is_balanced():
    """Their costs are not told apart, so the cheaper number is worth nothing. Quality keeps up with it."""
    points = [a_point(0, 0.98, 8.0), a_point(1, 0.975, 2.0), a_point(2, 0.979, 2.1), a_point(3, 0.9785, 4.0, [2])]
    points[1] = replace(points[1], ties=(2,))
    picks = named_picks(points, OBJECTIVES)

    assert [pick.point.trial for pick in picks] == [2, 2, 1]
    assert "and the most accurate of 2 tied" in picks[1].reason


def test_a_tie_with_the_more_accurate_untouched_model_wins_nothing():
    """Then it is kept."""
    points = [replace(a_point(0, 0.98, 2.05), ties=(1,)), a_point(1, 0.979, 2.0)]
    balanced = named_picks(points, OBJECTIVES)[1]

    assert balanced.point.trial == 0
    assert balanced.reason == "the untouched model itself: trial 1 is tied with it, so nothing was won"


def test_a_metric_that_is_no_share_may_lose_a_percent_of_itself():
    """As in the search: 1% of an error of 20 is 0.2."""
    points = [a_point(0, -20.0, 8.0), a_point(1, -20.15, 2.0), a_point(2, -20.9, 1.0), a_point(3, -21.1, 0.5)]

    assert picked(points, allowed_drop=0.05) == [1, 1, 2]


@given(st.lists(st.tuples(st.integers(80, 100), st.integers(1, 9)), min_size=1, max_size=8), st.sampled_from([None, 0.02, 0.05]))
@settings(max_examples=80, deadline=None)
def test_on_any_front_the_picks_keep_what_they_promise(rows, allowed):
    """Balanced is the cheapest that loses at most a point, quality is as accurate, compact costs no more than any other."""
    points = [a_point(0, 0.95, 5.0), *(a_point(at, share / 100, float(cost)) for at, (share, cost) in enumerate(rows, start=1))]
    front = with_untouched(non_dominated(points, OBJECTIVES), points)
    cuts = [point for point in front if point.trial and point.values["usd_per_million"] < 5.0]
    lost = {point.trial: 0.95 - point.values["accuracy"] for point in points}

    picks = {pick.name: pick.point for pick in named_picks(front, OBJECTIVES, allowed)}

    assert tuple(picks) == PICKS
    if not cuts:
        assert {point.trial for point in picks.values()} == {0}
        return
    close = [point for point in [points[0], *cuts] if lost[point.trial] <= 0.01 + 1e-9]
    cheapest = min(point.values["usd_per_million"] for point in close)
    tied = {trial for point in close if point.values["usd_per_million"] == cheapest for trial in (point.trial, *point.ties)}
    assert picks["balanced"].trial in tied
    assert picks["quality"].values["accuracy"] >= picks["balanced"].values["accuracy"]
    within = [cut.values["usd_per_million"] for cut in cuts if allowed is None or lost[cut.trial] <= allowed + 1e-9]
    assert not within or picks["compact"].values["usd_per_million"] == min(within)
    assert lost[picks["quality"].trial] <= max(0.0, min(lost[cut.trial] for cut in cuts)) + 1e-9
    assert allowed is None or picks["compact"].values["usd_per_million"] <= picks["balanced"].values["usd_per_million"]


def test_what_a_trial_brings_is_told_once_however_many_names_it_has():
    """Three times the same sentence hides that there is one model to read about."""
    one = named_picks(FRONT[:2], OBJECTIVES, 0.05)
    told = dict(told_once(one))

    assert {pick.point.trial for pick in one} == {1}
    assert told["quality"] == f"trial 1, {one[0].reason}"
    assert told["balanced"] == "trial 1 too, the cheapest within 1.0 point of the untouched model"
    assert told["compact"] == "trial 1 too, the cheapest within 5.0 points of the untouched model"
    assert [text.split(",")[0] for _, text in told_once(named_picks(FRONT, OBJECTIVES, 0.05))] == ["trial 1", "trial 3", "trial 4"]


def test_a_pick_that_says_something_new_of_a_trial_is_told_whole():
    """Where no cut is close, the untouched model is two picks, for two reasons."""
    points = [a_point(0, 0.9, 1.0), a_point(4, 0.82, 0.1, bundle="b")]
    told = dict(told_once(named_picks(points, OBJECTIVES, 0.05)))

    assert "is within 1.0 point of it" in told["balanced"]
    assert "trial 4" in told["balanced"]
