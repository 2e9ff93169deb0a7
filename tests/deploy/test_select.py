"""Selection against a brute-force oracle, and the text of its reasons."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.deploy.remarks import doubt
from autocut.deploy.select import select_point
from autocut.errors import InputError, NoResultError, UnknownNameError
from autocut.front import Final, FrontPoint
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe
from autocut.score import parse_limit


def a_point(trial, accuracy, cost, size=100.0, ties=(), recipe=None):
    """A point with the values that selection looks at; trial 0 is the untouched model."""
    if recipe is None:
        recipe = {} if trial == 0 else {"prune.method": "structured", "prune.ratio": trial / 1000}
    values = {"accuracy": accuracy, "usd_per_million": cost, "latency_ms": cost * 2, "size_bytes": size, "train_usd": 0.0}
    latency = Latency(1, 64, Interval(cost, cost, cost), None, None, cost, Interval(1 / cost, 1 / cost, 1 / cost), 1.0)
    measured = Accuracy("validation", 100, Interval(accuracy, accuracy, accuracy))
    measurement = Measurement(measured, Cost((latency,), int(size), int(size), 1, 1.0, "here"))
    return FrontPoint(trial, Recipe(recipe), {**values, "speedup": 1 / cost}, measurement, trial == 0, None, tuple(ties))


def on_test(point, accuracy, difference=None):
    """What finalization found of `point`: this accuracy on the locked test split."""
    measured = Accuracy("test", 100, Interval(accuracy, accuracy, accuracy), difference)
    values = {**point.values, "accuracy": accuracy}
    return Final(point.trial, values, replace(point.measurement, accuracy=measured), None, None, True, None)


@st.composite
def fronts(draw):
    """The untouched model and up to eight others on a coarse grid, so that equal values and ties happen."""
    accuracies, costs = st.integers(0, 20).map(lambda n: n / 20), st.integers(1, 6).map(float)
    count = draw(st.integers(0, 8))
    ties = draw(st.sets(st.tuples(st.integers(0, count), st.integers(0, count))))
    return [
        a_point(trial, draw(accuracies), draw(costs), float(draw(st.integers(1, 3))), sorted(b for a, b in ties if a == trial != b))
        for trial in range(count + 1)
    ]


@given(points=fronts(), drop=st.none() | st.integers(0, 20).map(lambda n: n / 20), bound=st.none() | st.integers(1, 12))
def test_the_choice_is_what_trying_every_point_gives(points, drop, bound):
    """Eligible, then least cost or tied with it, then accuracy, size, trial."""
    limits = [] if bound is None else [parse_limit(f"latency_ms<={bound}")]
    grid = [round(points[0].values["accuracy"] * 20) - round(point.values["accuracy"] * 20) for point in points]
    eligible = [
        point
        for point, lost in zip(points, grid, strict=True)
        if (drop is None or lost <= round(drop * 20)) and (bound is None or point.values["latency_ms"] <= bound)
    ]
    if not eligible:
        with pytest.raises(NoResultError, match="the closest is trial"):
            select_point(points, max_accuracy_drop=drop, limits=limits, minimize="cost")
        return

    selection = select_point(points, max_accuracy_drop=drop, limits=limits, minimize="cost")

    order = sorted(eligible, key=lambda p: (p.values["usd_per_million"], -p.values["accuracy"], p.values["size_bytes"], p.trial))
    best = order[0]
    same = [
        p
        for p in order
        if p.values["usd_per_million"] == best.values["usd_per_million"] or p.trial in best.ties or best.trial in p.ties
    ]
    assert selection.point == sorted(same, key=lambda p: (-p.values["accuracy"], p.values["size_bytes"], p.trial))[0]
    assert ("tied with" in selection.reason) or len(same) == 1
    assert "\n" not in selection.reason


@given(points=fronts())
def test_the_knee_is_one_of_the_points_that_meet_the_limits(points):
    """Whatever the shape of the front."""
    selection = select_point(points, max_accuracy_drop=0.3, knee=True)

    assert points[0].values["accuracy"] - selection.point.values["accuracy"] <= 0.3 + 1e-9


def test_the_reason_says_why_this_one():
    """Rank, drop, gain, next best."""
    points = [a_point(0, 0.978, 6.1), a_point(1, 0.972, 1.0), a_point(2, 0.970, 1.08), a_point(3, 0.9, 0.1)]

    selection = select_point(points, max_accuracy_drop=0.01, minimize="cost")

    assert selection.point.trial == 1
    assert selection.reason == (
        "cheapest of 3 models within 1.0 point of the untouched model's 0.978; 6.1x cheaper as one process in the search, "
        "accuracy 0.972 (-0.6 points) on validation; the next best, trial 2, is 8% dearer"
    )


def test_a_percentage_of_a_metric_that_is_a_share_is_refused():
    """No model could meet it. An error in kilometres may be asked to be below 95."""
    with pytest.raises(InputError, match="limit on accuracy must be at most 1, as a share is, got 'accuracy>=95'") as error:
        select_point([a_point(0, 0.98, 1.0)], limits=[parse_limit("accuracy>=95")])
    assert error.value.hint == "did you mean 'accuracy>=0.95'?"
    assert select_point([a_point(0, -20.0, 1.0)], limits=[parse_limit("accuracy>=-95")]).point.trial == 0
    assert select_point([a_point(0, 120.0, 1.0)], limits=[parse_limit("accuracy>=95")]).point.trial == 0


def test_a_drop_of_exactly_the_allowed_point_is_allowed():
    """0.978 - 0.968 is 0.010000000000000009 in floating point."""
    assert select_point([a_point(0, 0.978, 2.0), a_point(1, 0.968, 1.0)], max_accuracy_drop=0.01).point.trial == 1


def test_the_paired_difference_is_the_drop():
    """Scoring may have ended early: then only the same examples of the untouched model compare."""
    point = a_point(1, 0.960, 1.0)
    paired = Accuracy("validation", 50, Interval(0.96, 0.96, 0.96), difference=Interval(-0.002, -0.004, 0.0))
    point = replace(point, measurement=replace(point.measurement, accuracy=paired))

    selection = select_point([a_point(0, 0.978, 2.0), point], max_accuracy_drop=0.01)

    assert selection.point.trial == 1
    assert "2x cheaper as one process in the search, accuracy 0.96 (-0.2 points) on validation" in selection.reason


def test_the_test_split_does_not_choose():
    """The point that is best on the test split is no better for it: the one that is cheaper on validation is taken."""
    points = [a_point(0, 0.98, 3.0), a_point(1, 0.975, 1.0), a_point(2, 0.976, 1.5)]
    tested = [replace(point, final=on_test(point, accuracy)) for point, accuracy in zip(points, (0.97, 0.90, 0.99), strict=True)]

    assert select_point(tested, max_accuracy_drop=0.01).point.trial == 1


def test_among_tied_points_the_more_accurate_wins_and_the_reason_names_the_tie():
    """Their costs do not differ significantly."""
    points = [a_point(0, 0.98, 6.0), a_point(1, 0.95, 1.0, ties=[2]), a_point(2, 0.97, 1.1, ties=[1])]

    selection = select_point(points, max_accuracy_drop=0.05)

    assert selection.point.trial == 2
    assert "tied with trial 1" in selection.reason


def test_the_untouched_model_may_win():
    """A baseline is a point like any other."""
    selection = select_point([a_point(0, 0.98, 1.0), a_point(1, 0.97, 2.0)], minimize="cost")

    assert selection.point.trial == 0
    assert "the untouched model itself" in selection.reason


def test_when_no_point_meets_the_limits_the_message_names_the_closest_and_the_hint_how_far_to_relax():
    """Exit code 1, and a hint that can be typed."""
    points = [a_point(0, 0.98, 5.0), a_point(1, 0.966, 1.0), a_point(2, 0.5, 0.5)]

    with pytest.raises(NoResultError) as caught:
        select_point(points, max_accuracy_drop=0.01, limits=[parse_limit("latency_ms<=2")])

    assert caught.value.exit_code == 1
    assert "none of 3 models is within 1.0 point of the untouched model's 0.98 and at latency_ms<=2" in caught.value.message
    assert "trial 1 (structured 0.001) with an accuracy drop of 1.4 points" in caught.value.message
    assert "--max-accuracy-drop 1.4%" in caught.value.hint


@pytest.mark.parametrize(("cost", "told"), [(1.00002, "1.001"), (123456.0, "1.235e+05"), (2.5, "2.5")])
def test_the_hint_of_a_limit_can_be_typed_and_is_kept_by_the_closest_point(cost, told):
    """A bound that is rounded down would fail again."""
    points = [a_point(0, 0.98, 1e6), a_point(1, 0.97, cost)]
    with pytest.raises(NoResultError) as caught:
        select_point(points, limits=[parse_limit("usd_per_million<=0.5")])

    assert caught.value.hint == f"relax to --limit 'usd_per_million<={told}'; or search longer"
    assert select_point(points, limits=[parse_limit(f"usd_per_million<={told}")]).point.trial == 1


def test_wrong_arguments_are_refused():
    """An unknown value, a negative drop, no points, no baseline."""
    points = [a_point(0, 0.98, 1.0)]
    with pytest.raises(UnknownNameError, match="minimize must be one of"):
        select_point(points, minimize="latency_s")
    with pytest.raises(UnknownNameError):
        select_point(points, minimize="accuracy")
    with pytest.raises(UnknownNameError):
        select_point(points, limits=[parse_limit("latency_ms<=2"), parse_limit("speed_of_light<=1")])
    for drop in (-0.01, 5, float("nan")):
        with pytest.raises(InputError, match="max_accuracy_drop must be a share from 0 to 1, got"):
            select_point(points, max_accuracy_drop=drop)
    with pytest.raises(InputError, match="untouched model among the points"):
        select_point([a_point(1, 0.9, 1.0)], max_accuracy_drop=0.01)
    with pytest.raises(NoResultError, match="got none"):
        select_point([])


def test_a_metric_that_is_no_share_is_shown_unchanged():
    """R2 or an error in units is not in percentage points. A share of it may be lost, as in the search."""
    points = [a_point(0, -12.0, 3.0), a_point(1, -12.5, 1.0)]

    chosen = select_point(points, max_accuracy_drop=0.05)
    assert (chosen.point.trial, "within 0.6 of the untouched model's -12" in chosen.reason) == (1, True)
    assert select_point(points, max_accuracy_drop=0.04).point.trial == 0
    with pytest.raises(NoResultError) as caught:
        select_point(points, max_accuracy_drop=0.04, limits=[parse_limit("latency_ms<=2")])
    assert caught.value.hint == "relax to --max-accuracy-drop 4.17%; or search longer"
    assert select_point(points, max_accuracy_drop=0.0417, limits=[parse_limit("latency_ms<=2")]).point.trial == 1


@pytest.mark.parametrize(
    ("with_cut", "alone", "told"),
    [
        (0.95, 0.94, "(4 epochs lr x0.3, trial 2) has +4.0 points, so 80% of the gain is the training's"),
        (0.95, 0.97, "has +7.0 points, so all of the gain is the training's"),
        (0.88, 0.92, "(4 epochs lr x0.3, trial 2) has +2.0 points"),
    ],
)
def test_the_reason_says_what_training_alone_does(with_cut, alone, told):
    """More epochs help any model: half of a front beat an undertrained baseline for no other reason."""
    training = {"train.epochs": 4, "train.lr_scale": 0.3}
    base, cut = a_point(0, 0.90, 2.0), a_point(1, with_cut, 1.0, recipe={**training, "prune.method": "structured"})
    trained = a_point(2, alone, 2.0, recipe=training)
    other = a_point(3, 0.99, 2.0, recipe={**training, "train.lr_scale": 3.0})

    assert select_point([base, cut], minimize="cost", measured=[base, cut, trained, other]).reason.endswith(told)
    assert "trained as long (4 epochs lr x3, trial 3)" in select_point([base, cut], measured=[base, cut, other]).reason


def test_an_iteratively_pruned_child_is_compared_with_all_epochs_that_it_saw():
    """4 epochs after each pruning are 8."""
    base = a_point(0, 0.90, 2.0)
    iterative = {"prune.method": "structured", "prune.ratio": 0.7, "prune.parent_ratio": 0.5, "train.epochs": 4}
    child = a_point(1, 0.95, 1.0, recipe=iterative)
    alike, shorter = a_point(2, 0.94, 2.0, recipe={"train.epochs": 8}), a_point(3, 0.91, 2.0, recipe={"train.epochs": 4})

    assert "trained as long (8 epochs, trial 2)" in select_point([base, child], measured=[base, child, alike, shorter]).reason
    assert "trained as long" not in select_point([base, child], measured=[base, child, shorter]).reason


def test_nothing_is_said_of_training_where_it_is_not_known():
    """Nor of a point that does not train, or does nothing else."""
    base, cut = a_point(0, 0.90, 2.0), a_point(1, 0.95, 1.0, recipe={"train.epochs": 4, "prune.method": "structured"})
    trained = a_point(2, 0.94, 0.5, recipe={"train.epochs": 4})

    for points in ([base, cut], [base, trained], [base, a_point(1, 0.9, 1.0), trained]):
        assert "trained as long" not in select_point(points[:2], measured=points).reason


def with_difference(point, low, value, high):
    """The point with this paired difference to the untouched model on the validation split."""
    accuracy = replace(point.measurement.accuracy, difference=Interval(value, low, high))
    return replace(point, measurement=replace(point.measurement, accuracy=accuracy))


def test_confident_asks_the_worse_end_of_the_interval_to_keep_the_drop():
    """Trial 2 is cheaper and loses half a point in the middle, but it may lose two."""
    sure = with_difference(a_point(1, 0.976, 2.0), -0.008, -0.004, 0.0)
    points = [a_point(0, 0.98, 4.0), sure, with_difference(a_point(2, 0.975, 1.0), -0.02, -0.005, 0.01)]

    assert select_point(points, max_accuracy_drop=0.01).point.trial == 2
    assert select_point(points, max_accuracy_drop=0.01, confident=True).point.trial == 1
    assert select_point(points, max_accuracy_drop=0.001, confident=True).point.trial == 0
    with pytest.raises(NoResultError, match=r"surely within 0.5 points .* an accuracy drop of up to 0.8 points"):
        select_point(points, max_accuracy_drop=0.005, confident=True, limits=[parse_limit("latency_ms<=4")])
    with pytest.raises(InputError, match="needs a largest drop"):
        select_point(points, confident=True)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (
            -0.03,
            -0.02,
            "contradicts this choice: trial 1 loses more than 1.0 point there (95% interval: from 2.0 points to 3.0",
        ),
        (
            -0.015,
            0.002,
            "cannot rule out that trial 1 loses more than 1.0 point (95% interval: from 0.2 points more accurate to 1.5",
        ),
        (-0.008, 0.0, None),
    ],
)
def test_where_the_test_split_contradicts_the_drop_it_is_said(low, high, said):
    """The test split chooses nothing, but it is not kept quiet."""
    point = a_point(1, 0.975, 1.0)
    tested = replace(point, final=on_test(point, 0.97, Interval((low + high) / 2, low, high)))
    found = doubt(tested, a_point(0, 0.98, 2.0), 0.01)

    assert (said is None and found is None) or (found is not None and said in found)
    assert doubt(point, a_point(0, 0.98, 2.0), 0.01) is None
    assert select_point([a_point(0, 0.98, 2.0), tested], max_accuracy_drop=0.01).doubt == found


@pytest.mark.parametrize(("low", "high", "said"), [(-0.03, -0.02, "loses more than 0.5 points there"), (-0.03, -0.001, None)])
def test_without_a_drop_the_test_split_is_compared_with_the_loss_on_validation(low, high, said):
    """A limit on latency promises no accuracy, but the reason names one: 0.5 points less on validation."""
    point = a_point(1, 0.975, 1.0)
    tested = replace(point, final=on_test(point, 0.97, Interval((low + high) / 2, low, high)))
    found = select_point([a_point(0, 0.98, 2.0), tested], limits=[parse_limit("latency_ms<=3")]).doubt

    assert found is None if said is None else said in found


def test_a_pick_is_doubted_by_its_own_promise():
    """Balanced promises a point, compact what the search allowed."""
    point = a_point(1, 0.975, 1.0)
    tested = replace(point, final=on_test(point, 0.96, Interval(-0.02, -0.03, -0.015)))
    points = [a_point(0, 0.98, 2.0), tested]

    assert "loses more than 1.0 point there" in select_point(points, pick="balanced", searched_drop=0.05).doubt
    assert select_point(points, pick="compact", searched_drop=0.05).doubt is None
    assert (
        "cannot rule out that trial 1 loses more than 2.0 points" in select_point(points, pick="compact", searched_drop=0.02).doubt
    )


def test_who_asks_to_be_confident_is_not_told_to_do_so():
    """The hint is for those who have not."""
    point = a_point(1, 0.975, 1.0)
    tested = replace(point, final=on_test(point, 0.97, Interval(-0.005, -0.02, 0.01)))

    assert "--confident" in doubt(tested, a_point(0, 0.98, 2.0), 0.01)
    assert "--confident" not in doubt(tested, a_point(0, 0.98, 2.0), 0.01, confident=True)


def test_a_pick_goes_by_the_limits_and_names_itself():
    """`compact` within what is allowed; an unknown name and a second question are refused."""
    points = [a_point(0, 0.98, 4.0), a_point(1, 0.975, 2.0), a_point(2, 0.9, 1.0)]

    assert select_point(points, pick="compact", max_accuracy_drop=0.05).point.trial == 1
    assert select_point(points, pick="compact", searched_drop=0.1).reason.startswith(
        "compact pick, the cheapest within 10.0 points"
    )
    with pytest.raises(UnknownNameError, match="pick"):
        select_point(points, pick="compakt")
    with pytest.raises(InputError, match="got both"):
        select_point(points, pick="compact", knee=True)


def test_a_limit_that_only_the_searchs_numbers_keep_is_doubted():
    """The search chose by its own timing and by validation; the final numbers may be on the other side of the bound."""
    point = a_point(1, 0.975, 1.0)
    tested = replace(point, final=on_test(point, 0.969, Interval(-0.005, -0.006, -0.004)))
    tested = replace(tested, final=replace(tested.final, values={**tested.final.values, "latency_ms": 2.2}))
    points = [a_point(0, 0.98, 2.0), tested]

    slow = select_point(points, limits=[parse_limit("latency_ms<=2.1")]).doubt
    assert slow.endswith("the final timing contradicts latency_ms<=2.1: trial 1 has latency_ms 2.2 there")
    wrong = select_point(points, limits=[parse_limit("accuracy>=0.97"), parse_limit("latency_ms<=2.5")]).doubt
    assert "the test split contradicts accuracy>=0.97: trial 1 has accuracy 0.969 there" in wrong
    assert "final timing" not in wrong
