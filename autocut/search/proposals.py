"""Proposals: an Optuna sampler over the space, asked in memory.

The study database holds every trial, but asking it costs a transaction for each parameter, and a proposal that is a duplicate,
infeasible or too long would leave a trace there. So the sampler works on an in-memory study that mirrors the finished trials; only
a proposal that really runs becomes a trial in the database. Measured (FACTS section 3): an ask takes 17
ms in memory and 127 ms on SQLite at 100 trials.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import moocore
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from autocut.errors import unknown_name
from autocut.front import objective_signs
from autocut.recipe import LEFT_OUT, PARENT_RATIO, Recipe, Value
from autocut.space import Axis, Space

_SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=8),
    "tpe_multivariate": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=8),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}

_REMEMBERED = 60
"""Trials besides the front that the sampler looks at; as many again before the rest is forgotten."""


def sampler_names() -> tuple[str, ...]:
    """Names that `--sampler` takes."""
    return tuple(_SAMPLERS)


class Proposer:
    """Suggests recipes of `space`, and learns from their results.

    The seed moves on with the number of trials already known, because an Optuna sampler is not stored: with the same seed a
    resumed search would repeat its first suggestions.
    """

    def __init__(self, space: Space, sampler: str, seed: int, known_trials: int = 0) -> None:
        if sampler not in _SAMPLERS:
            raise unknown_name("--sampler", sampler, _SAMPLERS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._sampler = _SAMPLERS[sampler](seed + known_trials)
        self.seed = seed + known_trials
        self._space = space
        self._random = np.random.default_rng([seed, known_trials])
        self._study = self._new_study()
        self._told = 0

    def _new_study(self) -> optuna.Study:
        directions = [optuna.study.StudyDirection[name.upper()] for name in self._space.objectives.values()]
        return optuna.create_study(directions=directions, sampler=self._sampler)

    def _renew(self) -> None:
        """Forget most of the beaten trials: a sampler's time grows with its trials, and the front tells it the most."""
        told = self.trials()
        kept = self._on_front(told)
        rest = [trial for trial in told if trial.number not in kept][-_REMEMBERED:]
        self._study = self._new_study()
        self._study.add_trials([*(trial for trial in told if trial.number in kept), *rest])
        self._told = 0

    def _on_front(self, told: Sequence[optuna.trial.FrozenTrial]) -> set[int]:
        """Numbers of the trials that break no limit and that no other one beats; `Study.best_trials` copies everything first."""
        feasible = [trial for trial in told if trial.values and all(value <= 0 for value in trial.constraints.values())]
        signs = objective_signs(self._space.objectives)
        losses = np.array([trial.values for trial in feasible], dtype=np.float64).reshape(-1, len(signs)) * signs
        return {trial.number for trial, kept in zip(feasible, moocore.is_nondominated(losses), strict=True) if kept}

    def propose(self) -> tuple[optuna.Trial, Recipe]:
        """Suggest one recipe. The trial must be told later, through `tell` or `reject`."""
        if self._told > _REMEMBERED:
            self._renew()
        trial = self._study.ask()
        return trial, suggest(trial, self._space)

    def places(self, count: int) -> list[int]:
        """Return random numbers, with which a caller picks what to vary."""
        return [int(place) for place in self._random.integers(2**31, size=count)]

    def prune_more(self, recipe: Recipe) -> Recipe | None:
        """Return the trained `recipe` pruned on to a larger ratio of the space, as its child; None where there is none."""
        axis = self._space.axis("prune.ratio")
        if axis is None or "prune.ratio" not in recipe or not recipe.is_trained or recipe.parent is not None:
            return None
        ratio = draw(axis, self._random)
        child = Recipe({**recipe, "prune.ratio": ratio, PARENT_RATIO: recipe["prune.ratio"]})
        return child if child.parent is not None else None

    def vary(self, recipe: Recipe) -> Recipe:
        """Return `recipe` with one active setting of the space drawn anew, or two; what becomes active is drawn too."""
        kept = self._settings(recipe)
        for name in self._random.permutation(list(kept))[: 1 + int(self._random.integers(2))]:
            del kept[str(name)]
        chosen: dict[str, Value] = {}
        for axis in self._space.axes:
            if self._space.is_active(axis, chosen):
                chosen[axis.name] = kept[axis.name] if axis.name in kept else draw(axis, self._random)
        return Recipe(chosen)

    def tell(self, trial: optuna.Trial, values: list[float], violations: Mapping[str, float]) -> None:
        """Report the objective values of a proposal, in the order of the space's objectives; a violation above 0 breaks a limit."""
        if trial.study is not self._study:
            self.learn(Recipe(trial.params), values, violations)
            return
        for name, violation in violations.items():
            trial.set_constraint(name, violation)
        self._study.tell(trial, values)
        self._told += 1

    def reject(self, trial: optuna.Trial) -> None:
        """Report a proposal that failed, was beaten before its training, or cannot run here: it counts as bad, without values."""
        if trial.study is not self._study:
            self.learn(Recipe(trial.params), None, {})
            return
        self._study.tell(trial, state=TrialState.PRUNED)
        self._told += 1

    def forget(self, trial: optuna.Trial) -> None:
        """Drop a proposal without a result, such as a duplicate: the sampler learns nothing from it."""
        if trial.study is self._study:
            self._study.tell(trial, state=TrialState.FAIL)

    def learn(self, recipe: Recipe, values: list[float] | None, violations: Mapping[str, float]) -> None:
        """Add a trial that was not proposed here: a fan-out sibling, an anchor, or one of an earlier session.

        `values` None means that it failed.
        """
        params, distributions = self.parameters(recipe)
        if not distributions:
            return
        self._told += 1
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        self._study.add_trial(
            create_trial(state=state, values=values, params=params, distributions=distributions, constraints=dict(violations))
        )

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """What the sampler looks at."""
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def parameters(self, recipe: Recipe) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Express `recipe` in the space's parameters; empty where it lies outside the space, as some baselines do.

        The sampler gets a child without its parent: the space has no axis for inherited weights.
        """
        params = self._settings(recipe)
        return params, {axis.name: distribution(axis) for axis in self._space.axes if axis.name in params}

    def _settings(self, recipe: Recipe) -> dict[str, Value]:
        if self._space.axis(PARENT_RATIO) is None and recipe.parent is not None:
            recipe = Recipe({name: value for name, value in recipe.items() if name != PARENT_RATIO})
        if not self._space.contains(recipe):
            return {}
        params: dict[str, Value] = {}
        for axis in self._space.axes:  # a sampler learns from what a recipe leaves out as from other values
            if self._space.is_active(axis, params) and (value := recipe.get(axis.name, LEFT_OUT.get(axis.name))) is not None:
                params[axis.name] = value
        return params


def suggest(trial: optuna.trial.BaseTrial, space: Space) -> Recipe:
    """Walk through the axes of `space`, asking `trial` for those whose conditions hold."""
    chosen: dict[str, Value] = {}
    for axis in space.axes:
        if space.is_active(axis, chosen):
            chosen[axis.name] = _suggest_axis(trial, axis)
    return Recipe(chosen)


def draw(axis: Axis, random: np.random.Generator) -> Value:
    """Draw a value of `axis` uniformly on its own scale."""
    if axis.choices:
        return axis.choices[int(random.integers(len(axis.choices)))]
    low, high = axis.low or 0.0, axis.high or 0.0
    if step := axis.step or (1 if axis.integer else None):
        value = low + step * int(random.integers(round((high - low) / step) + 1))
        return int(value) if axis.integer else value
    return float(np.exp(random.uniform(np.log(low), np.log(high))) if axis.log else random.uniform(low, high))


def distribution(axis: Axis) -> BaseDistribution:
    """Return Optuna's description of `axis`."""
    if axis.choices:
        return CategoricalDistribution(list(axis.choices))
    low, high = axis.low or 0.0, axis.high or 0.0
    if axis.integer:
        return IntDistribution(int(low), int(high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(low, high, log=axis.log, step=axis.step)


def _suggest_axis(trial: optuna.trial.BaseTrial, axis: Axis) -> Value:
    if axis.choices:
        chosen: Value = trial.suggest_categorical(axis.name, list(axis.choices))  # type: ignore[assignment]  # no choice is None
        return chosen
    low, high = axis.low or 0.0, axis.high or 0.0
    if axis.integer:
        return trial.suggest_int(axis.name, int(low), int(high), log=axis.log, step=int(axis.step or 1))
    return trial.suggest_float(axis.name, low, high, log=axis.log, step=axis.step)
