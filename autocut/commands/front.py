"""`autocut front` and `autocut select`: show the results of a study, and choose one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autocut.budget import format_size, format_usd
from autocut.commands.verb import JSON, LIMIT_NAMES, PERCENT, SIZE, FiniteNumber, verb
from autocut.console import DEFAULT_WIDTH, Console, cell_text
from autocut.counting import format_count, inflected
from autocut.errors import InputError, NoResultError
from autocut.precision import FULL
from autocut.recipe import UNTOUCHED, baseline_words

if TYPE_CHECKING:
    from autocut.front import Final, FrontPoint
    from autocut.measurement import Capacity, Interval
    from autocut.study import Study

_HALF = "± is half of the 95% interval"
STUDY = click.argument("study", type=click.Path(path_type=Path))


@verb(
    "front",
    "Print the front of a study.",
    "autocut front studies/digits",
    "autocut front studies/digits --json",
    "autocut front studies/digits --all --csv",
    "autocut front studies/digits --plot",
)
@STUDY
@JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, one row a trial.")
@click.option("--all", "everything", is_flag=True, help="Every completed trial, not the front alone.")
@click.option("--plot/--no-plot", default=None, help="Draw the front above its table.  [default: on a terminal]")
@click.pass_obj
def front(console: Console, study: Path, as_json: bool, as_csv: bool, everything: bool, plot: bool | None) -> int:
    """Print the front of STUDY: the measurements that none other beats, and three picks. Baselines are marked."""
    if as_json and as_csv:
        raise InputError("output must be either --json or --csv, got both", "leave one out")
    if plot and (as_json or as_csv):
        raise InputError("--plot must stand without --json and --csv, got both", "leave one out")
    from autocut.study import open_study

    opened = open_study(study)
    if not as_csv:
        print_front(opened, console, as_json=as_json, everything=everything, plot=plot)
        return 0
    frame = opened.to_frame()
    if not everything:
        frame = frame[frame["trial"].isin([point.trial for point in opened.front()])]
    console.data(frame.to_csv(index=False).rstrip("\n"))
    return 0


@verb(
    "select",
    "Pick one point of a front, and say why.",
    "autocut select studies/digits",
    "autocut select studies/digits --max-accuracy-drop 1% --minimize size",
    "autocut select studies/digits --max-latency-ms 5 --max-size 5MB",
    "autocut select studies/digits --knee --json",
    "autocut select studies/digits --pick balanced",
    "autocut select studies/digits --max-accuracy-drop 5% --confident",
)
@STUDY
@click.option("--max-accuracy-drop", type=PERCENT, help="Points of the metric that may be lost, or a share of an error: 1%.")
@click.option("--confident", is_flag=True, help="The drop must be kept by the worse end of its 95% interval, not by its middle.")
@click.option("--max-latency-ms", type=FiniteNumber(0, min_open=True), help="Median latency at the first serving batch size.")
@click.option("--max-size", type=SIZE, help="Size of the exported model: 5MB.")
@click.option("--limit", "limits", multiple=True, metavar="LIMIT",
              help=f"Any other bound: 'usd_per_million<=0.1'. {LIMIT_NAMES} Repeatable.")  # fmt: skip
@click.option("--minimize", help="cost, latency, size, training, or the name of a value.  [default: the study's]")
@click.option("--pick", metavar="quality|balanced|compact", help="A choice with a name: `autocut front` shows all three.")
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
    """Pick one point of STUDY's front, and say why in one line.

    Without an option it is the model that most people should take: the pick `balanced`.
    """
    from autocut.attribution.evidence import read_evidence
    from autocut.attribution.knobs import knob_sentence
    from autocut.bill import bill_lines, point_bill, price_note
    from autocut.deploy.select import select_from_study
    from autocut.study import open_study

    bounds = [*limits]
    bounds += [f"latency_ms<={max_latency_ms}"] if max_latency_ms is not None else []
    bounds += [f"size_bytes<={max_size}"] if max_size is not None else []
    if choice["pick"] is not None and (choice["knee"] or choice["minimize"] is not None):
        other = "--knee" if choice["knee"] else f"--minimize {choice['minimize']}"
        raise InputError(f"--pick must stand without --knee and --minimize, got --pick {choice['pick']} {other}", "leave one out")
    opened = open_study(study)
    baseline = _untouched(opened)
    selection = select_from_study(opened, limits=bounds, **choice)
    knobs = knob_sentence(read_evidence(opened), study, selection.point.trial, selection.point.recipe)
    money = opened.facts, opened.paid_s(), baseline, selection.point
    if as_json:
        bill = point_bill(*money)
        described = {"reason": selection.reason, "knobs": knobs, "point": _point_document(selection.point)}
        told = {
            "bill": None if bill is None else bill.document,
            "price_note": price_note(opened.facts),
            "doubt": selection.doubt,
            "looks": len(opened.looks()),
        }
        console.document({"schema_version": 1, "study": opened.name, **described, **told})
        return 0
    _print_points([selection.point], console)
    notes = [note for note in (selection.doubt, price_note(opened.facts)) if note]
    about = [selection.reason] if selection.point.recipe == UNTOUCHED else [selection.reason, knobs]
    console.prose("\n".join(["", *about, *bill_lines(*money), *notes]))
    if selection.point.tested:
        console.remark(_looks_note(opened))
    console.info(f"take it: autocut export {study} --trial {selection.point.trial} --to out/")
    return 0


def print_front(
    study: Study, console: Console, *, as_json: bool = False, everything: bool = False, plot: bool | None = None
) -> None:
    """Print the front of an open study as a table with three picks, or as one JSON document.

    The untouched model is shown even if it is beaten, because every other number is compared with it; so is the untouched model
    that was trained as long as a point of the front. On a terminal a plot stands above the table; `plot` overrules that.

    Raises:
        NoResultError: No trial has completed yet.
    """
    from autocut.bill import price_note
    from autocut.commands.terminal_plot import plot_lines
    from autocut.deploy.select import picks_of_study
    from autocut.measurement import told_together
    from autocut.picks import cost_of, told_once

    points = study.points() if everything else study.front()
    if as_json:
        console.document(front_document(study, points))
        return
    if not points:
        raise NoResultError("the front is empty: no trial has completed yet", "let autocut search run on")
    on_front = {point.trial for point in points}
    compared = {UNTOUCHED, *(point.recipe.untouched_trained_alike for point in points)}
    shown = [*points, *(point for point in study.points() if point.recipe in compared and point.trial not in on_front)]
    picks = picks_of_study(study)
    width = console.terminal_width()
    if plot or (plot is None and width is not None):
        drawn = plot_lines(shown, cost_of(study.objectives), picks, width or DEFAULT_WIDTH)
        console.data("\n".join([*drawn, ""])) if drawn else None
    _print_points(shown, console, {point.trial for point in shown} - on_front)
    console.remark(f"\n{_HALF}; goals: {', '.join(f'{way} {name}' for name, way in study.objectives.items())}")
    told = [f"{name:<9} {text}" for name, text in told_once(picks)]
    console.remark("\n".join(["", *told])) if told else None
    measured = [(point.trial, numbers.measurement) for point in shown for numbers in (point, point.tested) if numbers]
    for line in told_together((trial, caveat) for trial, measurement in measured for caveat in measurement.caveats):
        console.remark(line)
    if any(point.tested for point in shown):
        console.remark(_looks_note(study))
    if untested := study.untested():
        console.remark(_tie_note(untested))
    trained, served = _trained_on(study), _served_on(study)
    if (trained, served) != ("cpu", "cpu"):
        serving = "the CPU" if served == "cpu" else served
        console.remark(f"models were trained on {'the CPU' if trained == 'cpu' else trained}; {serving} scored and timed them")
    if (precision := study.facts.get("train_precision", FULL)) != FULL:
        console.remark(f"models were trained in mixed precision ({precision})")
    if note := price_note(study.facts):
        console.remark(note)


def front_document(study: Study, points: Sequence[FrontPoint]) -> dict[str, Any]:
    """Return the JSON document of a front."""
    from autocut.bill import price_note
    from autocut.deploy.select import picks_of_study

    baseline = _untouched(study)
    return {
        "schema_version": 1,
        "study": study.name,
        "objectives": dict(study.objectives),
        "points": [_point_document(point) for point in points],
        "baseline": _point_document(baseline) if baseline is not None else None,
        "price_note": price_note(study.facts),
        "trained_on": _trained_on(study),
        "served_on": _served_on(study),
        "picks": [{"name": pick.name, "trial": pick.point.trial, "reason": pick.reason} for pick in picks_of_study(study)],
        "untested": list(study.untested()),
        "looks": len(study.looks()),
    }


def _trained_on(study: Study) -> str:
    """Return the kind of device that trains the models of `study`; an earlier autocut had no choice, and wrote none down."""
    return str(study.facts.get("train_on", "cpu"))


def _served_on(study: Study) -> str:
    """Return the kind of device that scores and times the models of `study`; an earlier autocut had no other than the CPU."""
    return str(study.facts.get("serve_on", "cpu"))


def _looks_note(study: Study) -> str:
    return f"{format_count(len(study.looks()), 'look')} at the locked test split so far; it chose nothing"


def _tie_note(untested: Sequence[int]) -> str:
    trials = f"{inflected(len(untested), 'trial')} {', '.join(map(str, untested))}"
    return f"ties in accuracy with {trials} are judged by intervals: their scores are no longer stored, or the metric is your own"


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
        "accuracy_ties": list(point.accuracy_ties),
        "shrinkage": point.shrinkage,
        "final": None if point.final is None else _final_document(point.final),
    }


def _final_document(final: Final) -> dict[str, Any]:
    from autocut.measurement import to_json

    capacity = final.measurement.capacity
    return {
        "values": dict(final.values),
        "measurement": to_json(final.measurement),
        "is_tested": final.is_tested,
        "verified": final.verified,
        "refusal": final.refusal,
        "served": None if capacity is None else asdict(capacity.best),
        "served_untouched": None if capacity is None else asdict(capacity.best_untouched),
        "charged_as": final.measurement.charged_as,
    }


def _print_points(points: Sequence[FrontPoint], console: Console, beaten: Sequence[int] | set[int] = ()) -> None:
    from autocut.commands.terminal_plot import table_in

    ordered = sorted(points, key=lambda point: (-point.values["accuracy"], point.trial))
    columns = [
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
    rows = [_row(point, point.trial in beaten) for point in ordered]
    if any(_capacity(point) for point in points):  # beside what one process serves and costs
        at = columns.index("latency ms")
        columns.insert(at, "whole machine")
        for row, point in zip(rows, ordered, strict=True):
            row.insert(at, _whole_machine(point))
    width = console.terminal_width()
    if width is None:
        console.table(columns, rows)
    else:
        console.data("\n".join(table_in(columns, [[cell_text(value) for value in row] for row in rows], width)))


def _row(point: FrontPoint, beaten: bool) -> list[object]:
    values = point.values
    marks = ([baseline_words(point.recipe)] if point.is_baseline else []) + (["beaten"] if beaten else [])
    marks += [f"ties with {', '.join(map(str, point.ties))}"] if point.ties else []
    recipe = point.recipe.describe() + (f" ({'; '.join(marks)})" if marks else "")
    return [
        point.trial,
        _accuracy(values["accuracy"], point.measurement.accuracy.metric),
        None if point.tested is None else _accuracy(point.tested.values["accuracy"], point.tested.measurement.accuracy.metric),
        _formatted(point.shrinkage, lambda shrinkage: f"{shrinkage:+.4f}"),
        _with_spread(point, "usd_per_million", format_usd),
        _with_spread(point, "latency_ms", cell_text),
        _formatted(values.get("size_bytes"), format_size),
        _formatted(values.get("train_usd"), format_usd),
        recipe,
    ]


def _accuracy(metric: float, interval: Interval) -> str:
    """Write a share with four places, so that they stand below each other; another metric with four digits.

    Half of its 95% interval follows, where it has one.
    """
    is_share = 0 <= metric <= 1
    half = (interval.high - interval.low) / 2
    spread = "" if half <= 0 else f" ±{half:.4f}" if is_share else f" ±{half:.2g}"
    return f"{metric:.4f}{spread}" if is_share else f"{metric:.4g}{spread}"


def _with_spread(point: FrontPoint, name: str, form: Callable[[float], str]) -> str | None:
    """Write a timed value, and half of its 95% interval in percent. The untouched model, to which others refer, has none."""
    from autocut.score import interval_of

    if name not in point.values:
        return None
    found = interval_of(name, point.values, point.measurement)
    spread = f" ±{(found.high - found.low) / 2 / found.value:.1%}" if found.high > found.low else ""
    return f"{form(found.value)}{spread}"


def _capacity(point: FrontPoint) -> Capacity | None:
    return None if point.tested is None else point.tested.measurement.capacity


def _whole_machine(point: FrontPoint) -> str | None:
    """What the machine serves of a point in its best layout, copies x threads, and the price of a million then."""
    from autocut.measurement import per_second

    if point.tested is None or (capacity := _capacity(point)) is None:
        return None
    best, usd = capacity.best, point.tested.values["usd_per_million"]
    return f"{per_second(best.per_s.value)} as {best.copies} x {best.threads}, {format_usd(usd)}"


def _formatted(value: float | None, form: Callable[[float], str]) -> str | None:
    return None if value is None else form(value)


def _untouched(study: Study) -> FrontPoint | None:
    from autocut.deploy.select import untouched

    return untouched(study.points())
