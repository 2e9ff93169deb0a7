"""The front on a terminal: where the characters stand, and that nothing is wider than the terminal."""

from dataclasses import replace

import pytest

from autocut.commands.terminal_plot import plot_lines, table_in
from autocut.front import FrontPoint
from autocut.measurement import Accuracy, Cost, Interval, Measurement
from autocut.picks import NamedPick
from autocut.recipe import Recipe

COLUMNS = [
    "trial",
    "accuracy (validation)",
    "accuracy (test)",
    "shrinkage",
    "per million",
    "latency ms",
    "size",
    "training",
    "recipe",
]
RECIPE = "structured 0.7 + 4 epochs lr x1 + curriculum linear easy_first + distill kl T=4 + int8_static + onnxruntime (ties with 3)"
ROWS = [
    [str(at), "0.9861 ±0.0130", "0.9917 ±0.0107", "+0.0056", "$0.000102 ±4.6%", "0.03364 ±3.8%", "18.9KB", "$0.000112", RECIPE]
    for at in (7, 1234)
]


def a_point(trial, accuracy, cost):
    """A point; trial 0 is the untouched model."""
    recipe = Recipe({} if trial == 0 else {"prune.method": "structured", "prune.ratio": trial / 1000})
    measured = Accuracy("validation", 100, Interval(accuracy, accuracy, accuracy))
    values = {"accuracy": accuracy, "usd_per_million": cost}
    return FrontPoint(trial, recipe, values, Measurement(measured, Cost((), 1, 1, 1, 1.0, "here")), trial == 0, None)


POINTS = [a_point(0, 0.98, 8.0), a_point(1, 0.97, 4.0), a_point(2, 0.96, 1.0)]


def test_each_point_stands_where_its_numbers_say():
    """The best is on top, the cheapest at the left; the split is named."""
    lines = plot_lines(POINTS, "usd_per_million", [NamedPick("compact", POINTS[2], "")], 60)
    rows = lines[1:12]

    assert lines[0] == "accuracy (validation)"
    assert (rows[0].split("|")[0].strip(), rows[-1].split("|")[0].strip()) == ("0.98", "0.96")
    assert [(row, line.index(mark)) for mark in "uoC" for row, line in enumerate(rows) if mark in line] == [
        (0, 58),
        (5, 29),
        (10, 7),
    ]
    assert lines[-1] == "C compact   u untouched model   o other points"
    assert "$1.00" in lines[-3]


def test_points_in_one_place_are_marked_and_a_pick_is_seen():
    """Of two equal points one is never hidden without a word."""
    same = [*POINTS, a_point(3, 0.97, 4.0), a_point(4, 0.96, 1.0)]
    lines = plot_lines(same, "usd_per_million", [NamedPick("quality", POINTS[1], "")], 60)

    assert sum(line.count("#") for line in lines[1:12]) == 1
    assert "# several points" in lines[-1]
    assert sum(line.count("Q") for line in lines[1:12]) == 1


def test_the_untouched_model_is_seen_where_another_point_has_its_numbers():
    """Everything is compared with it, and training alone often changes nothing."""
    lines = plot_lines([*POINTS, a_point(3, 0.98, 8.0)], "usd_per_million", [], 60)

    assert sum(line.count("u") for line in lines[1:12]) == 1
    assert "u untouched model" in lines[-1]


def test_what_does_not_differ_has_one_number_on_its_axis():
    """Two ends with the same number would say that there is a range."""
    level = plot_lines([a_point(0, 0.57, 4.0), a_point(1, 0.57, 1.0)], "usd_per_million", [], 60)
    upright = plot_lines([a_point(0, 0.9, 4.0), a_point(1, 0.8, 4.0)], "usd_per_million", [], 60)

    assert [line.split("|")[0].strip() for line in level[1:12]] == ["", "", "", "", "", "0.57", "", "", "", "", ""]
    assert sum(line.count("$4.00") for line in upright) == 1


def test_costs_far_apart_are_drawn_on_a_logarithm():
    """Else all cheap points would stand in one column. A cost of zero has no logarithm."""
    wide = [*POINTS, a_point(5, 0.99, 100.0)]

    assert any("logarithmic" in line for line in plot_lines(wide, "usd_per_million", [], 80))
    assert not any("logarithmic" in line for line in plot_lines([*wide, a_point(6, 0.9, 0.0)], "usd_per_million", [], 80))


def test_one_point_is_not_drawn():
    """There is nothing to compare."""
    assert plot_lines(POINTS[:1], "usd_per_million", [], 80) == []
    assert plot_lines([POINTS[1], replace(POINTS[1], trial=9)], "usd_per_million", [], 80) == []


@pytest.mark.parametrize("width", [50, 60, 80, 100, 140, 240])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(width):
    """Recipes are wrapped, and each split keeps a column with its name."""
    lines = table_in(COLUMNS, ROWS, width)
    words = " ".join(lines).split()

    assert max(map(len, lines)) <= width
    assert [words.count(word) for word in ("(validation)", "(test)", "1234")] == [1, 1, 1]
    assert all(words.count(word) >= 2 for word in RECIPE.split())
    assert max(map(len, plot_lines(POINTS, "usd_per_million", [], width))) <= width
