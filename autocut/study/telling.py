"""Writes the end of a trial into Optuna's tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

Distributions = Mapping[str, BaseDistribution]

# optuna-dashboard 0.21 reads only this list, and Optuna 5 writes only `constraints:<name>`. Without both, infeasible trials look
# feasible. The samplers read both: that doubles the violation and changes no order. Can go when the dashboard reads the new keys.
_LEGACY_CONSTRAINTS = "constraints"


@dataclass(frozen=True)
class NewTrial:
    """A trial that Optuna does not have yet. `started` gives it a bar on the dashboard's timeline."""

    params: Mapping[str, Any]
    distributions: Distributions
    started: dt.datetime | None


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its objectives if it is COMPLETE, its user attributes, and the violation of each limit."""

    state: TrialState
    values: Sequence[float] | None
    attrs: Mapping[str, Any]
    constraints: Mapping[str, float]


def end(study: optuna.Study, trial: Trial | FrozenTrial | NewTrial, outcome: Outcome) -> int:
    """Write the outcome of a running trial, or add a new trial with its outcome; return the trial's number."""
    if isinstance(trial, NewTrial):
        return _add(study, trial, outcome)
    # The attributes come first and the state last, so that a finished trial always has all of them.
    storage = study._storage
    for key, value in outcome.attrs.items():
        storage.set_trial_user_attr(trial._trial_id, key, value)
    if outcome.constraints and isinstance(trial, Trial):
        for key, violation in outcome.constraints.items():
            trial.set_constraint(key, violation)
        storage.set_trial_system_attr(trial._trial_id, _LEGACY_CONSTRAINTS, list(outcome.constraints.values()))
    study.tell(trial.number, outcome.values, outcome.state)
    return trial.number


def _add(study: optuna.Study, trial: NewTrial, outcome: Outcome) -> int:
    """Add a finished trial in one transaction."""
    frozen = create_trial(
        state=outcome.state,
        values=outcome.values,
        params=dict(trial.params),
        distributions=dict(trial.distributions),
        user_attrs=dict(outcome.attrs),
        system_attrs={_LEGACY_CONSTRAINTS: list(outcome.constraints.values())} if outcome.constraints else {},
        constraints=dict(outcome.constraints),
    )
    if trial.started is not None:
        frozen.datetime_start = trial.started.astimezone().replace(tzinfo=None)  # Optuna stores local times without a zone
    # `study.add_trial` would not return the number (Optuna 5.0.0).
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=frozen)
    return study._storage.get_trial_number_from_id(trial_id)
