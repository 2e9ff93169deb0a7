"""Markdown notes for the dashboard: the results of the study, the facts of a trial, and the exact next command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from autocut.budget import format_duration
from autocut.counting import format_count
from autocut.front import FrontPoint, knee
from autocut.gains import with_untouched
from autocut.measurement import Accuracy, Interval, Latency, Measurement
from autocut.picks import RECOMMENDED, named_picks, told_once
from autocut.recipe import baseline_words, changed_settings
from autocut.report.words import label, show
from autocut.study import Final, Study, TrialRecord

_KEY = re.compile(r"[0-9a-f]{24,}")
_TABLE_ROWS = 25
_TIES_SHOWN = 5
_FIXED_SPACE = "\u00a0"
_HEADERS = {
    "usd_per_million": "$ per million",
    "latency_ms": "latency (p50)",
    "size_bytes": "size",
    "compressed_size_bytes": "compressed size",
    "train_usd": "training",
}
_ALSO_SHOWN = ("usd_per_million", "latency_ms", "size_bytes", "speedup")


def study_note(study: Study, front: Sequence[FrontPoint]) -> str:
    """Return the note of the study: the model that most people should take, the other picks, and the front."""
    trials = study.trials()
    done = sum(trial.state == "COMPLETE" for trial in trials)
    lines = [
        f"# {study.name}",
        "",
        f"{format_count(done, 'trial')} measured, {len(trials) - done} ended early, {len(front)} on the front, "
        f"{format_duration(study.spent_s())} worked. Objectives: {_objectives(study.objectives)}.",
        "",
    ]
    if not front:
        return "\n".join([*lines, "No measured trial yet."])
    picks = named_picks(with_untouched(front, study.points()), study.objectives, study.facts.get("max_accuracy_drop"))
    best = next((pick.point for pick in picks if pick.name == RECOMMENDED), None) or knee(front, study.objectives)
    lines += [f"## Take trial {best.trial}", "", f"**{best.recipe.describe()}**", ""]
    lines += [f"- **{name}**: {text}." for name, text in told_once(picks)]
    lines += ["", f"Most people should take **{RECOMMENDED}**."] if picks else []
    lines += ["", "```sh", export_command(study.folder, best.trial), "```", ""]
    lines += ["## Front", "", *_front_table(front, study.objectives)]
    if any(point.ties for point in front):
        lines += ["", "Ties are trials that do not differ significantly from this one."]
    if any(not trial.is_feasible for trial in trials) or any(not final.verified for final in study.finals().values()):
        lines += [
            "",
            "*Best Trials* on the first page is this front, if the page comes from `autocut dashboard`. A plain `optuna-dashboard` "
            "ignores the limits and the refused bundles there.",
        ]
    lines += [
        "",
        "## Take another one",
        "",
        "```sh",
        f"autocut select {_quoted(study.folder)} --max-accuracy-drop 1% --minimize size",
        "```",
    ]
    return "\n".join(lines)


def trial_note(study: Study, trial: TrialRecord, final: Final | None) -> str:
    """Return the note of one trial: its settings and measurements, or why it ended."""
    title = trial.recipe.describe() if trial.recipe else "unknown recipe"
    lines = [f"# Trial {trial.trial}", "", f"**{title}**", ""]  # a long heading would not be wrapped
    if trial.reason is not None:
        ended = "Stopped early" if trial.state == "PRUNED" else "Failed"
        lines += [f"**{ended}:** {trial.reason}", ""]
    if trial.is_baseline and trial.recipe is not None:
        words = baseline_words(trial.recipe)
        lines += [f"Run for comparison{' as a' if words == 'baseline' else ','} {words}.", ""]
    lines += [f"- not feasible: **{name}** is exceeded by {value:.3g}" for name, value in trial.constraints.items() if value > 0]
    if final is not None and not final.verified:
        lines += [f"**Its bundle was refused:** {final.refusal or 'no reason given'}. It stays off the front.", ""]
    if trial.recipe is not None and changed_settings(trial.recipe):
        settings = [[name, str(value)] for name, value in changed_settings(trial.recipe).items()]
        lines += ["", *_table([["setting", "value"], *settings]), ""]
    # A trial that was refused before its test has validation numbers in `final`; they are shown below.
    if final is not None and final.is_tested:
        lines += [*_measurement_table("Locked test split", final.measurement, final.values)]
    if trial.measured is not None:
        lines += [*_measurement_table("Validation split, during the search", trial.measured.measurement, trial.measured.values)]
    if trial.extras:
        lines += ["## More", "", *(f"- {label(name)}: {_plain(value)}" for name, value in trial.extras.items()), ""]
    if trial.measured is not None and (final is None or final.verified):
        lines += ["## Take it away", "", "```sh", export_command(study.folder, trial.trial), "```"]
    return "\n".join(lines)


def export_command(folder: Path, trial: int) -> str:
    """Return the command that writes the bundle of `trial`."""
    return f"autocut export {_quoted(folder)} --trial {trial} --to out/"


def _front_table(front: Sequence[FrontPoint], objectives: Mapping[str, str]) -> list[str]:
    extra = [name for name in _ALSO_SHOWN if name in front[0].values and name not in objectives]
    names = [*(name for name in objectives if name != "accuracy"), *extra]
    headers = (_HEADERS.get(name, label(name)) for name in names)
    rows = [["trial", "model", "accuracy, validation (95%)", "accuracy, test (95%)", *headers, "ties"]]
    ranked = sorted(front, key=lambda point: -point.values["accuracy"])
    for point in ranked[:_TABLE_ROWS]:
        name = point.recipe.describe() + (" *(baseline)*" if point.is_baseline else "")
        numbers = (show(key, point.values.get(key)) for key in names)
        tested = "–" if point.tested is None else _accuracy(point.tested.measurement.accuracy)
        cells = [_accuracy(point.measurement.accuracy), tested, *numbers, _some(point.ties)]
        rows.append([str(point.trial), name, *(cell.replace(" ", _FIXED_SPACE) for cell in cells)])
    more = ["", f"and {len(ranked) - _TABLE_ROWS} more: `autocut front`"] if len(ranked) > _TABLE_ROWS else []
    return [*_table(rows), *more]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table; the first row is the header. The dashboard pads no cells, so spaces that stay end each one."""
    header, *body = [f"| {' | '.join(f'{cell}{3 * _FIXED_SPACE}' for cell in row)} |" for row in rows]
    return [header, "|" + ":---|" * len(rows[0]), *body]


def _some(trials: Sequence[int]) -> str:
    """Return the first few numbers, or a dash."""
    shown = ", ".join(map(str, trials[:_TIES_SHOWN]))
    return f"{shown}, …" if len(trials) > _TIES_SHOWN else shown or "–"


def _measurement_table(title: str, measurement: Measurement, values: Mapping[str, float]) -> list[str]:
    accuracy, cost = measurement.accuracy, measurement.cost
    metric = accuracy.metric
    rows = [["", "value", "95% interval"]]
    rows.append([f"accuracy ({format_count(accuracy.examples, 'example')})", f"{metric.value:.4f}", _interval(metric, ".4f")])
    if accuracy.difference is not None:
        gain, certain = accuracy.difference, "" if accuracy.p_value is None else f", p = {accuracy.p_value:.3g}"
        rows.append([f"difference to untouched{certain}", f"{gain.value:+.4f}", _interval(gain, "+.4f")])
    for latency in cost.latencies:
        rows += _latency_rows(latency)
    shown = {name: value for name, value in values.items() if name not in ("accuracy", "latency_ms", "speedup")}
    headers = {**_HEADERS, "usd_per_million": f"$ per million, {measurement.charged_as}"}
    rows += [[headers.get(name, label(name)), show(name, value), ""] for name, value in shown.items()]
    rows += [["cold start", show("cold_start_ms", cost.cold_start_ms), ""]]
    threads = format_count(cost.threads, "thread")
    charged = [f"Dollars: {measurement.charged_by}.", ""] if accuracy.split == "test" else []
    caveats = [line for caveat in measurement.caveats for line in (caveat.sentence, "")]
    return [f"## {title}", "", *_table(rows), "", f"Machine: {cost.machine}, {threads}.", "", *charged, *caveats]


def _latency_rows(latency: Latency) -> list[list[str]]:
    at, p50 = f"at batch size {latency.batch_size}", latency.p50_ms
    percentiles = (("p90", latency.p90_ms), ("p99", latency.p99_ms))
    more = "".join(f", {name} {value:.3g}" for name, value in percentiles if value is not None)
    return [
        [f"latency {at}, ms ({format_count(latency.samples, 'call')})", f"p50 {p50.value:.3g}{more}", _interval(p50, ".3g")],
        [f"speed-up {at}", f"{latency.speedup.value:.2f}x", _interval(latency.speedup, ".2f")],
    ]


def _accuracy(accuracy: Accuracy) -> str:
    metric = accuracy.metric  # a line may break behind a dash
    return f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})"


def _interval(interval: Interval, digits: str) -> str:
    return f"{interval.low:{digits}} – {interval.high:{digits}}"


def _plain(value: object) -> str:
    """Return a fact in one line; keys are shortened as in git."""
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"`{text[:12]}`" if _KEY.fullmatch(text) else text


def _objectives(objectives: Mapping[str, str]) -> str:
    return ", ".join(f"{direction} {name}" for name, direction in objectives.items())


def _quoted(folder: Path) -> str:
    return shlex.quote(str(folder))
