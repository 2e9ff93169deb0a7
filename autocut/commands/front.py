"""`autocut front` and `autocut select`: show the results of a study, and choose one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autocut.budget import format_size, format_usd
from autocut.commands.verb import JSON, PERCENT, SIZE, verb
from autocut.console import Console
from autocut.errors import InputError, NoResultError
from autocut.recipe import UNTOUCHED, baseline_words

if TYPE_CHECKING:
    from autocut.front import Final, FrontPoint
    from autocut.study import Study

STUDY = click.argument("study", type=click.Path(path_type=Path))


@verb(
    "front",
    "Print the front of a study.",
    "autocut front studies/digits",
    "autocut front studies/digits --json",
    "autocut front studies/digits --all --csv",
)
@STUDY
@JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, one row a trial.")
@click.option("--all", "everything", is_flag=True, help="Every completed trial, not the front alone.")
@click.pass_obj
def front(console: Console, study: Path, as_json: bool, as_csv: bool, everything: bool) -> int:
    """Print the front of STUDY: the measurements that none other beats. Baselines are marked."""
    if as_json and as_csv:
        raise InputError("output must be either --json or --csv, got both", "leave one out")
    from autocut.study import open_study

    opened = open_study(study)
    if not as_csv:
        print_front(opened, console, as_json=as_json, everything=everything)
        return 0
    frame = opened.to_frame()
    if not everything:
        frame = frame[frame["trial"].isin([point.trial for point in opened.front()])]
    console.data(frame.to_csv(index=False).rstrip("\n"))
    return 0


@verb(
    "select",
    "Pick one point of a front, and say why.",
    "autocut select studies/digits --max-accuracy-drop 1% --minimize cost",
    "autocut select studies/digits --max-latency-ms 5 --max-size 5MB",
    "autocut select studies/digits --knee --json",
)
@STUDY
@click.option("--max-accuracy-drop", type=PERCENT, help="Points of the metric that may be lost against the untouched model: 1%.")
@click.option("--max-latency-ms", type=click.FloatRange(0, min_open=True), help="Median latency at the first serving batch size.")
@click.option("--max-size", type=SIZE, help="Size of the exported model: 5MB.")
@click.option("--limit", "limits", multiple=True, metavar="LIMIT", help="Any other bound: 'usd_per_million<=0.1'. Repeatable.")
@click.option("--minimize", help="cost, latency, size, training, or the name of a value.  [default: cost]")
@click.option("--knee", is_flag=True, help="The point after which saving more starts to cost most accuracy.")
@JSON
@click.pass_obj
def select(
    console: Console,
    /,
    study: Path,
    max_latency_ms: float | None,
    max_size: int | None,
    limits: tuple[str, ...],
    as_json: bool,
    **choice: Any,
) -> int:
    """Pick one point of STUDY's front, and say why in one line."""
    from autocut.attribution.evidence import read_evidence
    from autocut.attribution.knobs import knob_sentence
    from autocut.bill import bill_lines, point_bill, price_note
    from autocut.deploy.select import select_point
    from autocut.score import parse_limit
    from autocut.study import open_study

    bounds = [*limits]
    bounds += [f"latency_ms<={max_latency_ms}"] if max_latency_ms is not None else []
    bounds += [f"size_bytes<={max_size}"] if max_size is not None else []
    opened = open_study(study)
    points = opened.front()
    baseline = _untouched(opened)
    candidates = points if baseline is None or baseline.trial in {point.trial for point in points} else [*points, baseline]
    selection = select_point(candidates, limits=[parse_limit(bound) for bound in bounds], measured=opened.points(), **choice)
    knobs = knob_sentence(read_evidence(opened), study, selection.point.trial, selection.point.recipe)
    money = opened.facts, opened.spent_s(), baseline, selection.point
    if as_json:
        bill = point_bill(*money)
        described = {"reason": selection.reason, "knobs": knobs, "point": _point_document(selection.point)}
        told = {"bill": None if bill is None else bill.document, "price_note": price_note(opened.facts)}
        console.document({"schema_version": 1, "study": opened.name, **described, **told})
        return 0
    _print_points([selection.point], console)
    note = price_note(opened.facts)
    console.data("\n".join(["", selection.reason, knobs, *bill_lines(*money), *([note] if note else [])]))
    console.info(f"take it: autocut export {study} --trial {selection.point.trial} --to out/")
    return 0


def print_front(study: Study, console: Console, *, as_json: bool = False, everything: bool = False) -> None:
    """Print the front of an open study as a table or as one JSON document.

    The untouched model is shown even if it is beaten, because every other number is compared with it; so is the untouched model
    that was trained as long as a point of the front.

    Raises:
        NoResultError: No trial has completed yet.
    """
    from autocut.bill import price_note

    points = study.points() if everything else study.front()
    if as_json:
        console.document(front_document(study, points))
        return
    if not points:
        raise NoResultError("the front is empty: no trial has completed yet", "let autocut search run on")
    compared = {UNTOUCHED, *(point.recipe.untouched_trained_alike for point in points)}
    shown = {point.trial for point in points}
    beaten = [point for point in study.points() if point.recipe in compared and point.trial not in shown]
    _print_points([*points, *beaten], console, {point.trial for point in beaten})
    if note := price_note(study.facts):
        console.info(note)


def front_document(study: Study, points: Sequence[FrontPoint]) -> dict[str, Any]:
    """Return the JSON document of a front."""
    from autocut.bill import price_note

    baseline = _untouched(study)
    return {
        "schema_version": 1,
        "study": study.name,
        "objectives": dict(study.objectives),
        "points": [_point_document(point) for point in points],
        "baseline": _point_document(baseline) if baseline is not None else None,
        "price_note": price_note(study.facts),
    }


def _point_document(point: FrontPoint) -> dict[str, Any]:
    from autocut.measurement import to_json

    return {
        "trial": point.trial,
        "recipe": dict(point.recipe),
        "values": dict(point.values),
        "measurement": to_json(point.measurement),
        "is_baseline": point.is_baseline,
        "bundle": point.bundle,
        "ties": list(point.ties),
        "shrinkage": point.shrinkage,
        "final": None if point.final is None else _final_document(point.final),
    }


def _final_document(final: Final) -> dict[str, Any]:
    from autocut.measurement import to_json

    return {
        "values": dict(final.values),
        "measurement": to_json(final.measurement),
        "is_tested": final.is_tested,
        "verified": final.verified,
        "refusal": final.refusal,
    }


def _print_points(points: Sequence[FrontPoint], console: Console, beaten: Sequence[int] | set[int] = ()) -> None:
    ordered = sorted(points, key=lambda point: (-point.values["accuracy"], point.trial))
    columns = ["trial", "accuracy (validation)", "accuracy (test)", "shrinkage", "per million", "ms", "size", "training", "recipe"]
    console.table(columns, [_row(point, point.trial in beaten) for point in ordered])


def _row(point: FrontPoint, beaten: bool) -> list[object]:
    values = point.values
    marks = ([baseline_words(point.recipe)] if point.is_baseline else []) + (["beaten"] if beaten else [])
    marks += [f"ties with {', '.join(map(str, point.ties))}"] if point.ties else []
    recipe = point.recipe.describe() + (f" ({'; '.join(marks)})" if marks else "")
    return [
        point.trial,
        values["accuracy"],
        None if point.tested is None else point.tested.values["accuracy"],
        _formatted(point.shrinkage, lambda shrinkage: f"{shrinkage:+.4f}"),
        _formatted(values.get("usd_per_million"), format_usd),
        values.get("latency_ms"),
        _formatted(values.get("size_bytes"), format_size),
        _formatted(values.get("train_usd"), format_usd),
        recipe,
    ]


def _formatted(value: float | None, form: Callable[[float], str]) -> str | None:
    return None if value is None else form(value)


def _untouched(study: Study) -> FrontPoint | None:
    from autocut.deploy.select import untouched

    return untouched(study.points())
