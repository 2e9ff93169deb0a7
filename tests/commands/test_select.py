"""`autocut select`: the choice, its reason, and its bill."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autocut import cli
from autocut.front import Final
from autocut.measurement import Interval
from tests.fakes import POINTS, TESTED, FakeStudy


@pytest.mark.parametrize(
    ("words", "trial"),
    [("--max-accuracy-drop 1%", 7), ("--max-accuracy-drop 10%", 9), ("--max-latency-ms 0.2", 9), ("--max-accuracy-drop 0%", 0)],
)
def test_select_takes_the_cheapest_that_keeps_the_limits(searches, capsys, words, trial):
    """The untouched model is a candidate too."""
    assert cli.main(["select", "studies/digits", *words.split(), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["point"]["trial"] == trial
    assert document["reason"]


def test_select_without_a_wish_takes_what_most_people_should_take(searches, capsys):
    """Trial 9 is cheaper, but loses eight points. It was the answer once."""
    assert cli.main(["select", "studies/digits", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["point"]["trial"] == 7
    assert document["reason"].startswith("balanced pick, the cheapest with a verified bundle within 1.0 point of")


def test_select_tells_where_the_test_split_contradicts_the_choice(searches, room, capsys):
    """Without --max-accuracy-drop too: the pick promises one point, and the point loses two to four there."""
    worse = replace(TESTED, accuracy=replace(TESTED.accuracy, difference=Interval(-0.03, -0.04, -0.02)))
    final = Final(7, {**POINTS[1].values, "accuracy": 0.95}, worse, None, None, verified=True, refusal=None)
    room("autocut.study", open_study=lambda folder: FakeStudy([POINTS[0], replace(POINTS[1], final=final), POINTS[2]]))

    assert cli.main(["select", "studies/digits"]) == 0
    assert "the test split contradicts this choice: trial 7 loses more than 1.0 point there" in capsys.readouterr().out


def test_select_says_why_and_how_to_take_it(searches, capsys):
    """Reason on stdout, the next command on stderr."""
    assert cli.main(["select", "studies/digits", "--max-accuracy-drop", "1%"]) == 0
    shown = capsys.readouterr()
    assert "cheapest" in shown.out
    assert "trial 7 is int8_static + onnxruntime: " in shown.out
    assert "autocut export studies/digits --trial 7 --to out/" in shown.err


def test_select_tells_the_bill_and_that_dollars_may_not_hold(searches, capsys):
    """As text and as JSON: what the search cost, when it has paid for itself, and whose price it is."""
    assert cli.main(["select", "studies/digits", "--max-accuracy-drop", "1%"]) == 0
    shown = capsys.readouterr().out
    assert "$0.250 per million predictions, $1.00 untouched; the search cost $0.0900" in shown
    assert "the search has paid for itself after 120,000 predictions" in shown
    assert "ratios hold, dollars may not" in shown

    assert cli.main(["select", "studies/digits", "--max-accuracy-drop", "1%", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bill"]["break_even_predictions"] == pytest.approx(120_000)
    assert document["price_note"].startswith("ratios hold")


def test_select_with_limits_that_nothing_meets_exits_with_one(searches, capsys):
    """The error names the closest point."""
    assert cli.main(["select", "studies/digits", "--max-size", "10B"]) == 1
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--pick balanced --knee", "--pick must stand without --knee and --minimize, got --pick balanced --knee"),
        ("--pick balanced --minimize size", "got --pick balanced --minimize size"),
        ("--pick balance", "pick must be one of balanced, compact, quality, got 'balance'"),
    ],
)
def test_a_pick_that_contradicts_another_flag_is_refused(searches, capsys, words, message):
    """One answer a question."""
    assert cli.main(["select", "studies/digits", *words.split()]) == 2
    assert message in capsys.readouterr().err
