"""How a finished trial gets into Optuna's tables: told if it was asked for, added whole if it is one that nobody asked for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

Distributions = Mapping[str, BaseDistribution]

# optuna-dashboard 0.21 knows only this list, Optuna 5 writes only `constraints:<name>`: without both, infeasible trials look
# feasible. The samplers read both, which doubles the violation and changes no order. Can go when the dashboard reads the new keys.
_LEGACY_CONSTRAINTS = "constraints"


def tell(
    study: optuna.Study,
    trial: Trial | FrozenTrial,
    state: TrialState,
    values: Sequence[float] | None,
    attrs: Mapping[str, Any],
    constraints: Mapping[str, float],
) -> int:
    """Finish `trial`, which was asked for: attributes first, the state last, so that a finished trial is always a whole one.

    Returns:
        The trial's number.
    """
    storage = study._storage
    for key, value in attrs.items():
        storage.set_trial_user_attr(trial._trial_id, key, value)
    if constraints and isinstance(trial, Trial):
        for key, bound in constraints.items():
            trial.set_constraint(key, bound)
        storage.set_trial_system_attr(trial._trial_id, _LEGACY_CONSTRAINTS, list(constraints.values()))
    study.tell(trial.number, values, state)
    return trial.number


def add(
    study: optuna.Study,
    state: TrialState,
    values: Sequence[float] | None,
    params: Mapping[str, Any],
    distributions: Distributions,
    attrs: Mapping[str, Any],
    constraints: Mapping[str, float],
    started: dt.datetime | None,
) -> int:
    """Add a finished trial in one transaction; `started` gives it its bar on the dashboard's timeline.

    Returns:
        The trial's number.
    """
    frozen = create_trial(
        state=state,
        values=values,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs=dict(attrs),
        system_attrs={_LEGACY_CONSTRAINTS: list(constraints.values())} if constraints else {},
        constraints=dict(constraints),
    )
    if started is not None:
        frozen.datetime_start = started.astimezone().replace(tzinfo=None)  # Optuna keeps local times without a zone
    # Not `study.add_trial`: it does not tell the number (Optuna 5.0.0).
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=frozen)
    return study._storage.get_trial_number_from_id(trial_id)
