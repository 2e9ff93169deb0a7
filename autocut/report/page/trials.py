"""The trials of the page: one line each, for the table and the plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autocut.measurement import Interval, Measurement
from autocut.recipe import baseline_words
from autocut.report.groups import FRONT, GROUPS, groups_of
from autocut.report.one_process import as_one_process
from autocut.report.page.contents import TrialLine
from autocut.score import interval_of
from autocut.study import Final, Study, TrialRecord

COSTS = ("usd_per_million", "latency_ms", "size_bytes", "train_usd")
"""The values that the cost axis of the plot may show."""
_VALUES = ("accuracy", *COSTS, "speedup")
WHOLE_MACHINE = "usd_whole_machine"
"""Dollars of a million predictions, charged by what the whole machine serves; other dollars are those of one process."""
DIFFERENCE = "difference"
"""The paired difference of the metric to the untouched model, where it was measured."""
_REASON_LENGTH = 300


def trial_lines(study: Study) -> list[TrialLine]:
    """Return every finished trial: the front first, then the baselines and the rest, each group from cheap to dear."""
    finals, groups = study.finals(), groups_of(study)
    ties = {point.trial: point.ties for point in study.front()}
    lines = [
        _line(study, trial, groups[trial.trial], finals.get(trial.trial), ties.get(trial.trial, ())) for trial in study.trials()
    ]
    return sorted(lines, key=lambda line: (GROUPS.index(line.group), _cost(line), line.trial))


def one_line(text: str) -> str:
    """Return the first line of a reason, not longer than a paragraph: some reasons are tracebacks."""
    first = text.strip().partition("\n")[0]
    return first if len(first) <= _REASON_LENGTH else f"{first[:_REASON_LENGTH]}…"


def _line(study: Study, trial: TrialRecord, group: str, final: Final | None, ties: Sequence[int]) -> TrialLine:
    # A trial that was refused before its test has validation numbers in `final`.
    tested = final if final is not None and final.measurement.accuracy.split == "test" else None
    notes = [one_line(trial.reason)] if trial.reason else []
    words = baseline_words(trial.recipe) if trial.is_baseline and trial.recipe else ""
    notes += [words] if words and (group == FRONT or words != "baseline") else []
    notes += [f"ties with {', '.join(map(str, ties))}"] if ties else []
    notes += [f"{name} is exceeded by {excess:.3g}" for name, excess in trial.constraints.items() if excess > 0]
    notes += [one_line(final.refusal or "no reason given")] if final is not None and not final.verified else []
    served = [tested.measurement.capacity.sentence] if tested and tested.measurement.capacity else []
    return TrialLine(
        trial=trial.trial,
        recipe=trial.recipe.describe() if trial.recipe else "unknown recipe",
        group=group,
        validation=_spread(trial.measured.values, trial.measured.measurement) if trial.measured else {},
        test=_tested(study, tested) if tested else {},
        notes=tuple(notes),
        remarks=(*served, *_caveats(trial, final)),
    )


def _caveats(trial: TrialRecord, final: Final | None) -> list[str]:
    """What a reader must know of a trial's numbers, each caveat once, although search and final timing may both have it."""
    measured = [*([trial.measured.measurement] if trial.measured else []), *([final.measurement] if final else [])]
    return list(dict.fromkeys(caveat.sentence.rstrip(".") for measurement in measured for caveat in measurement.caveats))


def _tested(study: Study, final: Final) -> dict[str, Interval]:
    one = as_one_process(study, final)
    found = _spread(one.values, one.measurement)
    if final.measurement.capacity is not None:
        found[WHOLE_MACHINE] = interval_of("usd_per_million", final.values, final.measurement)
    return found


def _spread(values: Mapping[str, float], measurement: Measurement) -> dict[str, Interval]:
    found = {name: interval_of(name, values, measurement) for name in _VALUES if name in values}
    paired = measurement.accuracy.difference
    return found | ({} if paired is None else {DIFFERENCE: paired})


def _cost(line: TrialLine) -> float:
    return line.validation[COSTS[0]].value if COSTS[0] in line.validation else 0.0
