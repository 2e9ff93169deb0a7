"""A front that is kept up to date is the one that comparing everything anew finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from autocut.front import FrontPoint, unbeaten, with_ties
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import UNTOUCHED, Recipe
from autocut.study.kept_points import KeptFront, KeptPoints
from autocut.study.records import StageRun
from autocut.study.scores import SCORES_STAGE, TrialScores

OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize", "size_bytes": "minimize"}
NOWHERE = Path("no-stages")
VALUE = st.sampled_from([0.25, 0.5, 0.75, 1.0, float("nan")])
CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "add", "add", "remove", "finalize", "look"]), st.integers(0, 40), VALUE, VALUE, VALUE)
)


def a_point(trial, accuracy, cost, size):
    """A point; trial 0 is the untouched model."""
    recipe = Recipe({"prune.method": "structured", "prune.ratio": trial / 100}) if trial else UNTOUCHED
    latency = Latency(1, 64, Interval(cost, cost, cost), None, None, cost, Interval(1 / cost, 0.9 / cost, 1.1 / cost), 1.0)
    measured = Accuracy("validation", 100, Interval(accuracy, accuracy - 0.1, accuracy + 0.1))
    values = {"accuracy": accuracy, "usd_per_million": cost, "size_bytes": size}
    return FrontPoint(trial, recipe, values, Measurement(measured, Cost((latency,), 1, 1, 1, 1.0, "here")), trial == 0, None)


def compared_anew(points):
    """The front of all points and the untouched model, with ties, and nothing kept from before."""
    front = unbeaten(points, OBJECTIVES)
    beaten = [point for point in points if point.recipe == UNTOUCHED and point not in front]
    return with_ties([*front, *beaten], OBJECTIVES)


@settings(deadline=None, max_examples=300)
@given(CHANGES)
def test_a_kept_front_is_the_one_of_all_points(changes):
    """Points come in any order of their numbers, some are refused later, some get other numbers."""
    kept = KeptFront(OBJECTIVES, TrialScores(NOWHERE, list))
    points = {}
    for change, trial, *values in changes:
        if change == "add" and trial not in points:
            points[trial] = a_point(trial, *values)
        elif change == "remove":
            points.pop(trial, None)
        elif change == "finalize" and trial in points:
            points[trial] = replace(points[trial], bundle="bundles/1")
        now = [points[number] for number in sorted(points)]

        assert repr(kept.compare(now, now).points) == repr(compared_anew(now))


def test_nothing_is_compared_where_nothing_has_changed(monkeypatch):
    """A search looks at its front every second; new scores may tell points apart that were tied before."""
    scores = TrialScores(NOWHERE, list)
    kept, points = KeptFront(OBJECTIVES, scores), [a_point(1, 0.5, 0.5, 0.5), a_point(2, 0.25, 0.25, 0.25)]
    first = kept.compare(points, points)

    assert kept.compare(points, points) is first
    scores.add(StageRun("k" * 64, SCORES_STAGE, "fp32", 1.0, "done", False, points[0].recipe.fingerprint, None))
    assert kept.compare(points, points) is not first
    assert kept.compare(points, points[1:]).front == [points[1]]


def a_record(trial, ratio, structure, accuracy, **settings):
    """A measured trial."""
    point = a_point(trial, accuracy, 0.5, 0.5)
    recipe = Recipe({"prune.method": "depth", "prune.ratio": ratio, **settings})
    made = {"trial": trial, "recipe": recipe, "is_feasible": True, "extras": {"structure": structure}}
    return SimpleNamespace(**made, point=replace(point, recipe=recipe))


def candidates(records, finals=()):
    """The trials that may be handed over."""
    found = SimpleNamespace(
        trials={record.trial: record for record in records},
        finals={trial: SimpleNamespace(verified=verified) for trial, verified in finals},
        measured=[record.trial for record in records],
    )
    return [one.point.trial for one in KeptPoints(NOWHERE).of(found) if one.is_candidate]


def test_of_several_trials_of_one_model_one_is_a_candidate(monkeypatch):
    """The first, or the one that has a bundle. Another accuracy, structure or setting is another model."""
    monkeypatch.setattr("autocut.study.kept_points.to_point", lambda record, *_: record.point)
    one, again, third = (a_record(trial, ratio, "1 block", 0.5) for trial, ratio in ((1, 0.75), (2, 0.95), (3, 0.85)))
    trained = {"train.epochs": 1}
    others = [
        a_record(4, 0.9, "2 blocks", 0.5), a_record(5, 0.8, "1 block", 0.75), a_record(6, 0.7, "1 block", 0.5, **trained),
        a_record(7, 0.7, "", 0.5), a_record(8, 0.6, "", 0.5),
    ]  # fmt: skip

    assert candidates([one, again, third]) == [1]
    assert candidates([one, again, third], finals=[(2, True)]) == [2]
    assert candidates([one, again, third], finals=[(1, False)]) == []  # its twins would be refused as well
    assert candidates([one, a_record(9, 0.755, "1 block", 0.5)]) == [1, 9]
    assert candidates([one, *others]) == [1, 4, 5, 6, 7, 8]
