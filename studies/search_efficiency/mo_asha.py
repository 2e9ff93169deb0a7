"""MO-ASHA's stopping rule in our agent, to compare ours with.

At a rung a training goes on if it is among the best third of all that came as far, by layers of non-domination in the metric of
the rung and the known costs (eta = 3: rungs after a ninth and a third of the epochs). Ours asks instead whether the end can still
reach the front. Thresholds go with the job, so they are as old as its start; when sixteen trainings in a row were stopped, or
nothing else is left, this agent too lets them go on.

References:
    Schmucker et al. 2021, Multi-objective asynchronous successive halving, https://arxiv.org/abs/2106.12639
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from autocut.recipe import Recipe
from autocut.search.agent import Agent
from autocut.search.estimates import ExpectedCost
from autocut.search.jobs import Event, Job, RungReached

ETA = 3


class MoAsha:
    """Our agent with another stopping rule: a training is judged by its rank among those that reached the same rung."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._state = agent.state
        self._expected_cost = ExpectedCost(agent.state)
        self._costs = [name for name in agent.state.settings.objectives if name != "accuracy"]
        self._at_rungs: dict[tuple[int, int], dict[Recipe, list[float]]] = {}
        agent.stopping_rule = lambda _, recipes: self.floors(recipes)

    def next_job(self) -> Job | None:
        """See `Agent`."""
        return self._agent.next_job()

    def on_event(self, job: Job, event: Event) -> None:
        """See `Agent`; the losses at a rung are those of the recipe that is trained for."""
        self._agent.on_event(job, event)
        if isinstance(event, RungReached):
            losses = [-event.rung.metric, *self._cost(event.recipe)]
            self._at_rungs.setdefault((event.rung.epochs, event.rung.epoch), {}).setdefault(event.recipe.prefix, losses)

    def on_job_end(self, job: Job, error: str | None) -> None:
        """See `Agent`."""
        self._agent.on_job_end(job, error)

    def floors(self, recipes: Sequence[Recipe]) -> dict[Recipe, tuple[float, ...]]:
        """See `early_stopping`: the lowest metric with which a training would be among the best third at its rung."""
        if self._state.is_relaxed:
            return {}
        first: dict[Recipe, Recipe] = {}
        for recipe in recipes:
            if recipe.is_trained and recipe.prefix not in self._state.trained:
                first.setdefault(recipe.prefix, recipe)
        return {prefix: self._floors(recipe, int(prefix["train.epochs"])) for prefix, recipe in first.items()}

    def _floors(self, recipe: Recipe, epochs: int) -> tuple[float, ...]:
        rungs = {math.ceil(epochs / ETA**power) for power in (1, 2)}
        return tuple(self._floor(recipe, epochs, epoch) if epoch in rungs else -math.inf for epoch in range(1, epochs))

    def _floor(self, recipe: Recipe, epochs: int, epoch: int) -> float:
        others = np.array(list(self._at_rungs.get((epochs, epoch), {}).values()))
        if len(others) < ETA:
            return -math.inf
        metrics, cost = np.sort(-others[:, 0]), self._cost(recipe)
        at = bisect_left(metrics, True, key=lambda metric: _is_in_best_third(others, np.array([-metric, *cost])))
        return float(metrics[at]) if at < len(metrics) else float(np.nextafter(metrics[-1], math.inf))

    def _cost(self, recipe: Recipe) -> list[float]:
        cost = self._expected_cost(recipe)
        return [cost[name] for name in self._costs]


def _is_in_best_third(others: NDArray[np.float64], point: NDArray[np.float64]) -> bool:
    """Whether fewer than a third of all points lie in better layers of non-domination than `point`."""
    points, ahead = np.vstack([others, point]), 0
    while len(points) > 1:
        layer = moocore.is_nondominated(points, keep_weakly=True)
        if layer[-1]:
            break
        ahead += int(layer.sum())
        points = points[~layer]
    return ahead * ETA < len(others) + 1
