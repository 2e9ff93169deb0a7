"""`autocut front`: the table, its documents, the plot and the picks."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from autocut import cli
from autocut.front import Final
from autocut.measurement import Cost, Interval
from tests.fakes import COST, POINTS, TESTED, FakeStudy, Terminal


def test_front_is_a_table_with_the_untouched_model_for_comparison(searches, capsys):
    """Baselines, ties and beaten points are marked."""
    assert cli.main(["front", "studies/digits"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert "untouched (baseline; beaten)" in " ".join(" ".join(lines).split())
    assert "ties with 8" in " ".join(" ".join(lines).split())


def test_each_split_has_a_column_of_its_own(searches, room, capsys):
    """0.98 on validation and 0.97 on test never stand in one column; what was not tested has none."""
    final = Final(7, {**POINTS[1].values, "accuracy": 0.97}, TESTED, None, None, verified=True, refusal=None)
    room("autocut.study", open_study=lambda folder: FakeStudy([POINTS[0], replace(POINTS[1], final=final), POINTS[2]]))

    assert cli.main(["front", "studies/digits"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()

    assert "2 looks at the locked test split so far; it chose nothing" in shown.err
    assert lines[0].split()[1:6] == ["accuracy", "(validation)", "accuracy", "(test)", "shrinkage"]
    assert [line.split()[:6] for line in lines[2:]] == [
        ["0", "0.9800", "±0.0150", "-", "-", "$1.00"],
        ["7", "0.9750", "±0.0150", "0.9700", "±0.0150", "-0.0050"],
        ["9", "0.9000", "±0.0150", "-", "-", "$0.100"],
    ]


def test_a_number_of_the_front_has_its_spread_beside_it(searches, room, capsys):
    """Half of the 95% interval: of an accuracy in its own unit, of what was timed in percent. A size has none."""
    speedup = Interval(4.0, 3.8, 4.2)
    timed = Cost((replace(COST.latencies[0], speedup=speedup),), 1000, 900, 1, 12.0, "m")
    near = replace(POINTS[1], measurement=replace(POINTS[1].measurement, cost=timed))
    room("autocut.study", open_study=lambda folder: FakeStudy([POINTS[0], near]))

    assert cli.main(["front", "studies/digits"]) == 0
    shown = capsys.readouterr()
    untouched, cut = shown.out.splitlines()[2:]

    assert "0.9750 ±0.0150" in cut
    assert "$0.250 ±5.0%" in cut
    assert "0.25 ±5.0%" in cut
    assert cut.count("±") == 3
    assert untouched.count("±") == 1  # what it is compared with has no spread of its own
    assert "± is half of the 95% interval; goals: maximize accuracy, minimize usd_per_million" in shown.err


def test_front_json_is_one_document_of_the_agreed_shape(searches, capsys):
    """Other programs rely on this shape."""
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    assert document["schema_version"] == 1
    assert document["objectives"] == {"accuracy": "maximize", "usd_per_million": "minimize"}
    assert [each["trial"] for each in document["points"]] == [7, 9]
    fields = {"trial", "recipe", "values", "measurement", "is_baseline", "bundle", "ties", "accuracy_ties"}
    assert set(document["points"][0]) == fields | {"final", "shrinkage"}
    assert document["points"][0]["measurement"]["accuracy"]["metric"] == {"value": 0.97, "low": 0.95, "high": 0.98}
    assert document["baseline"]["trial"] == 0


def test_front_csv_has_one_row_a_point(searches, capsys):
    """--all adds what is beaten."""
    assert cli.main(["front", "studies/digits", "--csv"]) == 0
    assert capsys.readouterr().out == "trial,accuracy\n7,0.975\n9,0.9\n"
    assert cli.main(["front", "studies/digits", "--csv", "--all"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "0,0.98"


def test_empty_front_is_no_result(searches, room, capsys):
    """The exit code is 1: the command ran, but there is no result yet."""
    room("autocut.study", open_study=lambda folder: FakeStudy([]))
    assert cli.main(["front", "studies/digits"]) == 1
    assert "no trial has completed" in capsys.readouterr().err


def test_front_says_that_dollars_may_not_hold(searches, capsys):
    """Beside the table, and in its document."""
    assert cli.main(["front", "studies/digits"]) == 0
    assert "ratios hold, dollars may not" in capsys.readouterr().err
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["price_note"].startswith("ratios hold")


@pytest.mark.parametrize(
    ("words", "on_terminal", "is_drawn"),
    [("", True, True), ("", False, False), ("--no-plot", True, False), ("--plot", False, True)],
)
def test_front_is_drawn_on_a_terminal_or_where_it_is_asked_for(searches, monkeypatch, words, on_terminal, is_drawn):
    """A program that reads the table gets the table alone."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", shown := Terminal() if on_terminal else io.StringIO())

    assert cli.main(["front", "studies/digits", *words.split()]) == 0
    assert ("u untouched model" in shown.getvalue()) == is_drawn


def test_front_names_three_picks_and_select_takes_one(searches, capsys):
    """The same trials in words, in the document, and as a choice."""
    assert cli.main(["front", "studies/digits"]) == 0
    shown = capsys.readouterr().err
    assert "balanced  trial 7 too, the cheapest with a verified bundle within 1.0 point of the untouched model" in shown
    assert "test split" not in shown  # nothing here was tested
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    picks = {pick["name"]: pick["trial"] for pick in json.loads(capsys.readouterr().out)["picks"]}

    assert list(picks) == ["quality", "balanced", "compact"]
    for name, trial in picks.items():
        assert cli.main(["select", "studies/digits", "--pick", name, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["point"]["trial"], document["reason"].split()[0]) == (trial, name)


def test_front_says_once_where_ties_go_by_intervals(searches, room, capsys):
    """Then fewer points are told apart than could be."""
    study = FakeStudy()
    study.untested = lambda: (7, 9)
    room("autocut.study", open_study=lambda folder: study)

    assert cli.main(["front", "studies/digits"]) == 0
    assert capsys.readouterr().err.count("ties in accuracy with trials 7, 9 are judged by intervals") == 1
