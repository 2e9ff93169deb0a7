"""Plots for the dashboard: the front, learning curves, and how the front grew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from autocut.front import FrontPoint, hypervolume, non_dominated, objective_signs, reference_point
from autocut.report.groups import BASELINES, BEATEN, OUTSIDE, REFUSED, groups_of
from autocut.report.one_process import as_one_process
from autocut.report.words import label, show
from autocut.score import interval_of
from autocut.study import Study, TrialRecord

Style = Mapping[str, Any]
Axes = tuple[str, str]
"""Names of the values along x and y."""

_MOST_POINTS = 250
_MOST_CURVES = 40
_LOG_FROM = 8
_LOST_MUCH = 0.1
"""The first view ends this share of the best accuracy below it, unless the front or an unpruned model goes further."""
_MARGIN = 0.08
_GREY, _LIGHT, _BLUE, _ORANGE = "#8a8f98", "#d2d5da", "#1f5fbf", "#d9730d"

_MARKERS: Mapping[str, Style] = {
    OUTSIDE: {"color": _LIGHT, "symbol": "x", "size": 7},
    REFUSED: {"color": _ORANGE, "symbol": "x", "size": 9},
    BEATEN: {"color": _GREY, "size": 6},
    BASELINES: {"color": _ORANGE, "symbol": "diamond", "size": 9},
}

_LINES: Mapping[str, Style] = {
    "front": {"color": _BLUE, "width": 2},
    "stopped early": {"color": _ORANGE, "width": 1, "dash": "dot"},
    "others": {"color": _GREY, "width": 1},
}


def pareto(study: Study, front: Sequence[FrontPoint]) -> go.Figure:
    """Draw quality over cost: the front with its intervals, the baselines, and the trials off the front (the newest of many)."""
    axes = _axes(study.objectives)
    figure = _figure(f"Front of {study.name}", label(axes[0]), label(axes[1]))
    behind = _behind(study)
    for name, points in behind.items():
        if points:
            figure.add_trace(_scatter(name, points[-_MOST_POINTS:], axes, _MARKERS[name]))
    if front:
        figure.add_trace(_front_trace(sorted(front, key=lambda point: point.values[axes[0]]), axes))
        figure.add_traces(_test_traces(study, front, axes))
    costs = [point.values[axes[0]] for points in (front, *behind.values()) for point in points]
    if costs and min(costs) > 0 and max(costs) > _LOG_FROM * min(costs):
        ticks = _log_ticks(min(costs), max(costs))
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    if axes[1] == "accuracy":
        whole = [point for point in behind[BASELINES] if not point.recipe.changes("prune.method")]
        _look_at_useful(figure, [*front, *whole], [point for points in behind.values() for point in points])
    return figure


def _look_at_useful(figure: go.Figure, useful: Sequence[FrontPoint], others: Sequence[FrontPoint]) -> None:
    """Leave points with a large loss out of the first view: they would squeeze the others into a line. A double click shows all."""
    seen, all_seen = ([point.values["accuracy"] for point in points] for points in (useful, (*useful, *others)))
    if seen:
        low = min(*seen, max(all_seen) - _LOST_MUCH * abs(max(all_seen)))
        margin = _MARGIN * (max(all_seen) - low)
        if min(all_seen) < low:
            figure.update_yaxes(range=[low - margin, max(all_seen) + margin])


def learning_curves(study: Study, front: Sequence[FrontPoint]) -> go.Figure:
    """Draw the validation metric after each epoch: the front in colour, the newest others in grey, early stopped trials dotted."""
    figure = _figure("Learning curves", "epoch", "metric on the validation split")
    on_front = {point.trial for point in front}
    curves = [trial for trial in study.trials() if trial.curve]
    others = [trial for trial in curves if trial.trial not in on_front][-_MOST_CURVES:]
    named: set[str] = set()
    for trial in (*others, *(trial for trial in curves if trial.trial in on_front)):
        group = "front" if trial.trial in on_front else "stopped early" if trial.state == "PRUNED" else "others"
        figure.add_trace(
            go.Scatter(
                x=list(range(1, len(trial.curve) + 1)),
                y=[_short(value) for value in trial.curve],
                name=group,
                legendgroup=group,
                showlegend=group not in named,
                mode="lines+markers",
                marker={"size": 4},
                line=dict(_LINES[group]),
                hovertext=_title(trial),
                hoverinfo="text+y",
            )
        )
        named.add(group)
    return figure


def hypervolume_history(study: Study) -> go.Figure:
    """Draw how the hypervolume grew over the minutes of work, as a share of its present value.

    Where the line is flat, more time improved nothing. The volume uses validation numbers, within the box that the measured trials
    span.
    """
    figure = _figure("How the front grew", "minutes worked", "hypervolume, share of now")
    if steps := growth_steps(study):
        figure.add_trace(
            go.Scatter(
                x=[minutes for minutes, _, _ in steps],
                y=[share for _, share, _ in steps],
                hovertext=[f"trial {number}" for _, _, number in steps],
                mode="lines+markers",
                line={"shape": "hv", "color": _BLUE},
                marker={"size": 5},
                name="front",
                showlegend=False,
            )
        )
        figure.update_yaxes(rangemode="tozero")
    return figure


def _test_traces(study: Study, front: Sequence[FrontPoint], axes: Axes) -> list[go.Scatter]:
    """Draw what the locked test split and the final timing give for the points of the front; nothing before the finalization.

    Dollars are those of one process, as everywhere in the plot.
    """
    finals = [(point, as_one_process(study, point.tested)) for point in front if point.tested]
    tested = [replace(point, values=one.values, measurement=one.measurement, final=None) for point, one in finals]
    tested = [point for point in tested if {*axes} <= {*point.values}]
    if not tested:
        return []
    trace = _scatter("front, test", tested, axes, {"color": _BLUE, "size": 9})
    return [trace.update(error_x=_errors(tested, axes[0]), error_y=_errors(tested, axes[1]))]


def growth_steps(study: Study) -> list[tuple[float, float, int]]:
    """Return how the hypervolume grew: (minutes worked, share of its present value, trial).

    There is one step for each trial that changed the front, and one for the last trial. Empty where the volume is 0.
    """
    steps = _growth(study)
    total = steps[-1][1] if steps else 0.0
    return [(round(minutes, 3), round(volume / total, 5), trial) for minutes, volume, trial in steps] if total > 0 else []


def _behind(study: Study) -> dict[str, list[FrontPoint]]:
    """Return the completed trials off the front, each in its group; the last group is drawn on top."""
    groups = groups_of(study)
    return {name: [point for point in study.points() if groups[point.trial] == name] for name in _MARKERS}


def _front_trace(points: Sequence[FrontPoint], axes: Axes) -> go.Scatter:
    symbols = ["diamond-open" if point.is_baseline else "circle-open" for point in points]
    trace = _scatter("front, validation", points, axes, {"color": _BLUE, "symbol": symbols, "size": 10}, mode="markers+lines")
    line = {"color": _BLUE, "width": 1, "dash": "dot"}
    return trace.update(line=line, error_x=_errors(points, axes[0]), error_y=_errors(points, axes[1]))


def _growth(study: Study) -> list[tuple[float, float, int]]:
    """Return (minutes worked, hypervolume, trial) for each trial that changed the front, and for the last trial."""
    refused = {number for number, final in study.finals().items() if not final.verified}
    trials = [trial for trial in study.trials() if trial.is_feasible and trial.measured is not None and trial.trial not in refused]
    points = {point.trial: point for point in study.points()}
    if not trials:
        return []
    # A trial gets its number when it is proposed. Several workers do not measure in this order.
    trials.sort(key=lambda trial: trial.measured.worked_s if trial.measured else 0.0)
    corner = reference_point([points[trial.trial] for trial in trials], study.objectives)
    front: list[FrontPoint] = []
    steps: list[tuple[float, float, int]] = []
    for trial in trials:
        grown = non_dominated([*front, points[trial.trial]], study.objectives)
        minutes = trial.measured.worked_s / 60 if trial.measured else 0.0
        if {point.trial for point in grown} != {point.trial for point in front}:
            front = grown
            steps.append((minutes, hypervolume(front, study.objectives, corner), trial.trial))
        elif trial is trials[-1]:
            steps.append((minutes, steps[-1][1], trial.trial))
    return steps


def _figure(title: str, x: str, y: str) -> go.Figure:
    # No template: plotly's own is 7 kB of JSON, and an update writes a row for every 2 kB. White, because the dashboard also has a
    # dark theme.
    return go.Figure(
        layout={
            "template": "none",
            "title": {"text": title, "x": 0.02},
            "xaxis": {"title": {"text": x}, "gridcolor": "#eceef1", "automargin": True},
            "yaxis": {"title": {"text": y}, "gridcolor": "#eceef1", "automargin": True},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "hovermode": "closest",
            "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
            # Above the plot, the legend covers the front in a narrow window.
            "legend": {"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
        }
    )


def _scatter(name: str, points: Sequence[FrontPoint], axes: Axes, marker: Style, mode: str = "markers") -> go.Scatter:
    return go.Scatter(
        name=name,
        x=[_short(point.values[axes[0]]) for point in points],
        y=[_short(point.values[axes[1]]) for point in points],
        hovertext=[_hover(point, axes) for point in points],
        hoverinfo="text",
        mode=mode,
        marker=dict(marker),
    )


def _axes(objectives: Mapping[str, str]) -> Axes:
    """Return the axes: the first minimized over the first maximized objective. If one kind is missing, the first two objectives."""
    names = list(objectives)
    minimized = [name for name, sign in zip(names, objective_signs(objectives), strict=True) if sign > 0]
    maximized = [name for name in names if name not in minimized]
    if minimized and maximized:
        return minimized[0], maximized[0]
    return names[0], names[min(1, len(names) - 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times every power of ten between `low` and `high`; plotly's own log ticks are bare digits."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5) if low <= float(f"{digit}e{power}") <= high]


def _errors(points: Sequence[FrontPoint], name: str) -> dict[str, Any]:
    """Return the error bars of the value `name`: its 95% interval. They are hidden if no point has one."""
    spread = [interval_of(name, point.values, point.measurement) for point in points]
    return {
        "type": "data",
        "symmetric": False,
        "array": [_short(max(one.high - one.value, 0.0)) for one in spread],
        "arrayminus": [_short(max(one.value - one.low, 0.0)) for one in spread],
        "color": _BLUE,
        "thickness": 1,
        "width": 2,
        "visible": any(one.high > one.low for one in spread),
    }


def _hover(point: FrontPoint, axes: Axes) -> str:
    numbers = ", ".join(show(name, point.values[name]) for name in dict.fromkeys(axes))
    tested = "" if point.tested is None else f"; {show('accuracy', point.tested.values['accuracy'])} on test"
    return f"trial {point.trial}: {point.recipe.describe()}<br>{numbers} ({point.measurement.accuracy.split}{tested})"


def _title(trial: TrialRecord) -> str:
    return f"trial {trial.trial}: {trial.recipe.describe() if trial.recipe else 'unknown recipe'}"


def _short(value: float) -> float:
    """Round to five digits: a plot shows no more, and the JSON is a third as long."""
    return float(f"{value:.5g}")
