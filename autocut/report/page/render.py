"""Writes the page as one HTML file that needs no network: styles, script, data and Plotly are inside.

Plotly is packed with gzip (1.5 MB instead of 4.8), and the browser unpacks it after the answer is visible. A content security
policy allows these two scripts by their hashes and nothing from anywhere else. What comes from the study, such as recipes and
reasons, is text: the template escapes it.

References:
    Content security policy: https://www.w3.org/TR/CSP3/; gzip in the browser: https://compression.spec.whatwg.org/
"""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from autocut.bill import bill_lines, point_bill, price_note
from autocut.budget import format_duration
from autocut.counting import format_count
from autocut.measurement import Interval
from autocut.recipe import UNTOUCHED
from autocut.report.groups import BASELINES, FRONT, GROUPS
from autocut.report.page.answer import answer_of
from autocut.report.page.contents import Answer, Recommendation, Section, TrialLine
from autocut.report.page.sections import closing_sections
from autocut.report.page.trials import COSTS, WHOLE_MACHINE, trial_lines
from autocut.report.plots import growth_steps
from autocut.report.words import label, show
from autocut.study import Study

_LOST_MUCH = 0.1
"""A model that loses this share of the best accuracy is out of the first view of the plot, unless it is on the front."""
_MARGIN = 0.08


@dataclass(frozen=True)
class _Column:
    title: str
    name: str
    is_test: bool = False
    is_number: bool = True


@dataclass(frozen=True)
class _Cell:
    value: str
    text: str
    spread: str


_COLUMNS = (
    _Column("accuracy, validation", "accuracy"),
    _Column("accuracy, test", "accuracy", is_test=True),
    _Column("$ per million, one process", "usd_per_million"),
    _Column("$ per million, one process, final timing", "usd_per_million", is_test=True),
    _Column("$ per million, whole machine", WHOLE_MACHINE, is_test=True),
    _Column("latency (p50)", "latency_ms"),
    _Column("size", "size_bytes"),
    _Column("training", "train_usd"),
)
_WORDS = (_Column("trial", "trial"), _Column("recipe", "recipe", is_number=False))


def render(
    study: Study, recommended: Recommendation | None, extra: Sequence[Section] = (), *, version: str, no_answer: str = ""
) -> str:
    """Return the page of `study` as HTML.

    Args:
        study: The study to show. It may still be searched.
        recommended: What to take; None if nothing was measured yet.
        extra: Further sections, shown in front of the page's own; empty ones are left out.
        version: Version of autocut.
        no_answer: Why nothing is recommended.
    """
    lines = trial_lines(study)
    columns = [column for column in _COLUMNS if any(column.name in _numbers(line, column) for line in lines)]
    script, plotly = _asset("page.js"), get_plotlyjs()
    by_number = {line.trial: line for line in lines}
    return _template().render(
        title=study.name,
        version=version,
        made=dt.datetime.now(dt.UTC).strftime("%d %B %Y, %H:%M UTC"),
        summary=_summary(study, lines),
        answer=_answer(study, recommended, by_number) if recommended else None,
        no_answer=no_answer,
        axes=[{"name": name, "label": _axis(name)} for name in COSTS if any(name in line.validation for line in lines)],
        groups=[group for group in GROUPS if any(line.group == group for line in lines)],
        marks={group: "baseline" if group == BASELINES else group for group in GROUPS},
        picks=_picks(recommended),
        columns=[*_WORDS, *columns],
        lines=[(line, [_cell(line, column) for column in columns]) for line in lines],
        all_command=f"autocut front {shlex.quote(str(study.folder))} --all",
        sections=[section for section in (*extra, *closing_sections(study)) if not section.is_empty],
        data=_data(study, lines, _picks(recommended)),
        style=Markup(_asset("page.css")),
        script=Markup(script),
        plotly=Markup(base64.b64encode(gzip.compress(plotly.encode(), mtime=0)).decode()),
        script_hashes=Markup(f"{_hash(script)} {_hash(plotly)}"),
    )


def _answer(study: Study, recommended: Recommendation, lines: Mapping[int, TrialLine]) -> Answer:
    untouched = next((point for point in study.points() if point.recipe == UNTOUCHED), None)
    money = study.facts, study.paid_s(), untouched, recommended.point
    told, note = bill_lines(*money), price_note(study.facts)
    notes = [*told, *([note] if told and note else [])]
    return answer_of(study.folder, recommended, lines, point_bill(*money), notes, len(study.looks()))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("autocut.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _asset(name: str) -> str:
    return (resources.files("autocut.report.page") / "templates" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _summary(study: Study, lines: Sequence[TrialLine]) -> str:
    measured = sum(bool(line.validation) for line in lines)
    front = sum(line.group == FRONT for line in lines)
    goals = ", ".join(f"{way} {label(name).partition(',')[0]}" for name, way in study.objectives.items())
    return (
        f"{format_count(measured, 'model')} measured, {format_count(len(lines) - measured, 'trial')} ended early, "
        f"{format_count(front, 'model')} on the front, "
        f"{format_duration(study.spent_s())} of work. Goals: {goals}."
    )


def _numbers(line: TrialLine, column: _Column) -> Mapping[str, Interval]:
    return line.test if column.is_test else line.validation


def _cell(line: TrialLine, column: _Column) -> _Cell:
    found = _numbers(line, column).get(column.name)
    if found is None:
        return _Cell("", "–", "")
    is_spread = line.group in (FRONT, BASELINES) and found.high > found.low
    return _Cell(f"{found.value:.6g}", show(column.name, found.value), _spread(column.name, found) if is_spread else "")


def _spread(name: str, found: Interval) -> str:
    if name == "accuracy":
        return f"{found.low:.4f}–{found.high:.4f}"
    return f"± {(found.high - found.low) / 2 / found.value:.1%}"


def _picks(recommended: Recommendation | None) -> dict[int, str]:
    """Return the names of the picks by their trial: ``{7: "quality, balanced"}``."""
    names: dict[int, list[str]] = {}
    for pick in recommended.picks if recommended else ():
        names.setdefault(pick.point.trial, []).append(pick.name)
    return {trial: ", ".join(found) for trial, found in names.items()}


def _data(study: Study, lines: Sequence[TrialLine], picks: Mapping[int, str]) -> dict[str, Any]:
    return {
        "metric": "accuracy",
        "axes": {name: _axis(name) for name in COSTS},
        "points": [_point(line) for line in lines if line.validation],
        "view": _first_view(lines),
        "picks": sorted(picks.items()),
        "growth": growth_steps(study),
    }


def _point(line: TrialLine) -> dict[str, Any]:
    sides = {side: _rounded(numbers) for side, numbers in (("v", line.validation), ("t", line.test)) if numbers}
    return {"id": line.trial, "r": line.recipe, "g": line.group, "n": "; ".join((*line.notes, *line.remarks))} | sides


def _axis(name: str) -> str:
    """Return the title of a cost axis: all its dollars are of one process."""
    return f"{label(name)}, one process" if name == "usd_per_million" else label(name)


def _rounded(numbers: Mapping[str, Interval]) -> dict[str, list[float]]:
    """Value, low and high in five digits: a plot shows no more."""
    return {name: [float(f"{one:.5g}") for one in (found.value, found.low, found.high)] for name, found in numbers.items()}


def _first_view(lines: Sequence[TrialLine]) -> tuple[float, float] | None:
    """Return the accuracies between which the plot opens. Models that lost much would squeeze the others into a line."""
    seen = [numbers["accuracy"].value for line in lines for numbers in (line.validation, line.test) if numbers]
    front = [bound for line in lines if line.group == FRONT for one in (line.validation, line.test) if one for bound in _ends(one)]
    if not front:
        return None
    best = max(*seen, *front)
    low = min(*front, *(value for value in seen if value >= best - _LOST_MUCH * abs(best)))
    margin = _MARGIN * (best - low)
    return low - margin, best + margin


def _ends(numbers: Mapping[str, Interval]) -> tuple[float, float]:
    return numbers["accuracy"].low, numbers["accuracy"].high
