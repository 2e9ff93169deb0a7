"""Which group a trial belongs to: on the front, a baseline, beaten, or why it cannot be chosen."""

from __future__ import annotations

from autocut.study import Final, Study, TrialRecord

FRONT, BASELINES, BEATEN = "front", "baselines", "beaten"
OUTSIDE, REFUSED = "outside the limits", "refused"
STOPPED, FAILED = "stopped early", "failed"
GROUPS = (FRONT, BASELINES, BEATEN, OUTSIDE, REFUSED, STOPPED, FAILED)
"""Every group. A trial is in exactly one: the front comes before a baseline, and a reason against a trial before both."""


def groups_of(study: Study) -> dict[int, str]:
    """Return the group of each finished trial of `study`, by number."""
    finals, front = study.finals(), {point.trial for point in study.front()}
    return {trial.trial: _group(trial, finals.get(trial.trial), is_on_front=trial.trial in front) for trial in study.trials()}


def _group(trial: TrialRecord, final: Final | None, *, is_on_front: bool) -> str:
    if trial.measured is None:
        return STOPPED if trial.state == "PRUNED" else FAILED
    if is_on_front:
        return FRONT
    if not trial.is_feasible:
        return OUTSIDE
    if final is not None and not final.verified:
        return REFUSED
    return BASELINES if trial.is_baseline else BEATEN
