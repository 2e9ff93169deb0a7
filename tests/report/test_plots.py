"""Figures: their content and their size."""

from __future__ import annotations

from autocut.report import plots


def test_every_completed_trial_is_in_one_group_of_the_front_plot(read_study):
    """Each trial is drawn once: on the front, or off it in the group of its reason."""
    figure = plots.pareto(read_study, read_study.front())

    drawn = sum(len(trace.x) for trace in figure.data if trace.name != "front, test")
    assert drawn == len(read_study.points())
    assert {"front, validation", "baselines"} <= {trace.name for trace in figure.data}


def test_cost_is_drawn_from_left_to_right(read_study):
    """Objectives may come in any order; the vertical axis is always quality."""
    figure = plots.pareto(read_study, read_study.front())

    assert figure.layout.xaxis.title.text == "USD per million predictions"
    assert figure.layout.yaxis.title.text == "accuracy"


def test_the_front_has_error_bars_of_its_intervals(read_study):
    """A front without its spread claims more than was measured."""
    front = sorted(read_study.front(), key=lambda point: point.values["usd_per_million"])
    trace = _named(plots.pareto(read_study, front), "front, validation")

    assert trace.error_y.visible
    highs = [y + error for y, error in zip(trace.y, trace.error_y.array, strict=True)]
    assert all(abs(high - point.measurement.accuracy.metric.high) < 1e-3 for high, point in zip(highs, front, strict=True))


def test_what_the_locked_test_split_gives_is_drawn_apart(read_study):
    """Validation numbers chose the front. A reader must not take them for the test's."""
    front = read_study.front()
    tested = {point.tested.values["accuracy"] for point in front if point.tested}
    drawn = set(_named(plots.pareto(read_study, front), "front, test").y)

    assert tested
    assert drawn == {float(f"{accuracy:.5g}") for accuracy in tested}


def test_models_that_lost_much_are_out_of_the_first_view(read_study):
    """They would squeeze the front into a line. The front and the unpruned baselines are always in view."""
    seen = [point for point in read_study.points() if point.values["accuracy"] > 0.97]
    figure = plots.pareto(read_study, seen[:2])
    low, high = figure.layout.yaxis.range
    kept = [value for trace in figure.data if trace.name in ("front, validation", "baselines") for value in trace.y]
    drawn = [value for trace in figure.data for value in trace.y]

    assert low < min(kept)
    assert high > max(drawn)
    assert min(drawn) < low


def test_an_empty_study_draws_nothing(empty_study):
    """A study without trials is no error."""
    assert not plots.pareto(empty_study, []).data
    assert not plots.learning_curves(empty_study, []).data
    assert not plots.hypervolume_history(empty_study).data


def test_stopped_trials_have_their_curves(read_study):
    """Early stopping saves budget, so the plot shows it."""
    figure = plots.learning_curves(read_study, read_study.front())
    assert {"front", "stopped early"} <= {trace.name for trace in figure.data}


def test_the_dominated_volume_never_shrinks(read_study):
    """Points are only added, and the last volume is the whole."""
    (trace,) = plots.hypervolume_history(read_study).data

    assert list(trace.y) == sorted(trace.y)
    assert trace.y[-1] == 1.0
    assert list(trace.x) == sorted(trace.x)


def test_growth_goes_by_the_time_of_the_measurement(read_study, monkeypatch):
    """Several workers do not measure in the order of the numbers; a line that goes back in time cannot be read."""
    trials = read_study.trials()
    expected = plots.growth_steps(read_study)
    monkeypatch.setattr(read_study, "trials", lambda: trials[::-1])

    assert len(expected) > 2
    assert plots.growth_steps(read_study) == expected


def test_a_figure_is_small(read_study):
    """Optuna writes it in pieces of 2 kB, each in a transaction."""
    assert len(plots.pareto(read_study, read_study.front()).to_json()) < 8_000


def test_log_ticks_are_numbers_that_people_read():
    """Plotly's own ticks are digits without their power of ten."""
    assert plots._log_ticks(0.004, 0.08) == [0.005, 0.01, 0.02, 0.05]


def _named(figure, name):
    """The trace of this name."""
    return next(trace for trace in figure.data if trace.name == name)
