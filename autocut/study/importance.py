"""Importance over a study: which settings separate its best trials from the others, by each value.

A ladder explains one trial, this looks at all of them. It says which settings the best trials have in common and the others do not
have, in the part of the space that the search has looked at. It does not say what a setting would buy.

A sampler tries settings together, so a setting may seem important because it came with another one. Where that cannot be, it is
left out: cost does not depend on weights, and so not on how they were trained.

References:
    Watanabe et al. 2023, PED-ANOVA, https://arxiv.org/abs/2304.10255
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from autocut.errors import NoResultError
from autocut.recipe import LOWERING_STAGES, PARENT_RATIO, PRUNE_WHEN
from autocut.study.database import storage_errors
from autocut.study.study import Study

FEWEST_TRIALS = 20
"""Fewer trials say nothing: PED-ANOVA wants at least five among the best."""
_OF_WEIGHTS = frozenset({"accuracy", "train_usd"})
_OF_COST = ("model", "prune", *LOWERING_STAGES)
_OF_WEIGHTS_ALONE = (PARENT_RATIO, PRUNE_WHEN)
_BEST_SHARE, _FEWEST_BEST = 0.1, 5


@dataclass(frozen=True)
class ValueImportance:
    """The share of each setting in what separates the `best` of `trials` trials by `value` from the others, the largest first."""

    value: str
    trials: int
    best: int
    shares: Mapping[str, float]


def importances(study: Study) -> tuple[ValueImportance, ...]:
    """Return the importance of the settings for each objective of `study`, by PED-ANOVA over its feasible trials.

    An objective by which all trials are equal is left out.

    Raises:
        NoResultError: there are too few trials, or they are all alike.
    """
    trials = _feasible_trials(study)
    if len(trials) < FEWEST_TRIALS:
        raise NoResultError(
            f"importance needs at least {FEWEST_TRIALS} measured trials within the limits, got {len(trials)}", "search longer"
        )
    best = max(_BEST_SHARE, _FEWEST_BEST / len(trials))
    found = []
    for index, (name, direction) in enumerate(study.objectives.items()):
        params = _settings_of(name, trials)
        if params and len({trial.values[index] for trial in trials}) > 1:
            sign = -1 if direction == "maximize" else 1
            shares = _shares(trials, params, partial(_signed_value, index=index, sign=sign), best)
            found.append(ValueImportance(name, len(trials), round(best * len(trials)), shares))
    if not found:
        raise NoResultError(f"importance needs trials that differ, got {len(trials)} that are all alike", "search longer")
    return tuple(found)


def _feasible_trials(study: Study) -> list[FrozenTrial]:
    feasible = {trial.trial for trial in study.trials() if trial.measured is not None and trial.is_feasible}
    with storage_errors(study.folder):
        trials = study.optuna.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return [trial for trial in trials if trial.number in feasible]


def _settings_of(value: str, trials: list[FrozenTrial]) -> list[str]:
    """Return the settings that differ between the trials and that `value` can depend on."""
    names = sorted({name for trial in trials for name in trial.params})
    differ = [name for name in names if len({trial.params.get(name) for trial in trials}) > 1]
    if value in _OF_WEIGHTS:
        return differ
    return [name for name in differ if name.partition(".")[0] in _OF_COST and name not in _OF_WEIGHTS_ALONE]


def _shares(
    trials: list[FrozenTrial], params: list[str], target: Callable[[FrozenTrial], float], best: float
) -> Mapping[str, float]:
    """Return the shares of `params` in what gives the lowest values of `target`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it reminds that low values count as good (Optuna 5.0.0)
        copy = optuna.create_study(directions=["minimize"] * len(trials[0].values))
        copy.add_trials(trials)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=best)
        shares = get_param_importances(copy, evaluator=evaluator, params=params, target=target)
    return MappingProxyType(dict(sorted(shares.items(), key=lambda item: -item[1])))


def _signed_value(trial: FrozenTrial, index: int, sign: int) -> float:
    """Return a value so that low is good."""
    return sign * float(trial.values[index])
