"""What is compared: autocut's own agent, whole and with a part switched off, and Optuna's samplers as people use them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from mo_asha import MoAsha
from simulation import Clock, MemoryTrialStore, Searcher
from table import Table

from autocut.budget import Budget
from autocut.config import LARGEST_DROP, SearchConfig
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.score import values_of
from autocut.search.agent import Agent
from autocut.search.first_guesses import NO_GUESSES, FirstGuesses, ModelTraits, known_families
from autocut.search.jobs import BaselineReady, Event, Job, JobKind, RecipeFailed, RecipeMeasured
from autocut.search.planner import Planner
from autocut.search.proposals import Proposer
from autocut.search.settings import EVERYTHING, SearchSettings, Tactics
from autocut.search.state import SearchState
from autocut.space import Space

PRICE = Price("c7i.large", 0.08925, "2026-11")
WORKERS = 2
_REPEATS = 20
"""Proposals in a row that are known or cannot run, after which one is drawn at random..."""
_GP_REPEATS = 3
"""... and of the GP sampler, which learns nothing from what cannot run, repeats itself, and takes up to a second each time."""
TRAITS: Mapping[str, ModelTraits] = MappingProxyType(
    dict.fromkeys(
        ("digits", "digits_training"), ModelTraits(0.75, attention=False, embeddings=False, causal=False, parameters=58_474)
    )
)
"""Of the tasks whose family is not among the first guesses, as `execution.model_traits` finds them."""
_TURIN = "avx2 avx512_vnni avx512_bf16"
INSTRUCTIONS: Mapping[str, str] = MappingProxyType({"digits": _TURIN, "digits_training": _TURIN, "fashion_mnist": "avx2"})
"""Instruction sets of the processors that the tables were recorded on: AMD EPYC 26/2 (Turin), and 25/1 (Milan) without AVX-512."""
_DRY = 500
"""Proposals in a row without a new one, after which a small space counts as explored."""


@dataclass(frozen=True)
class Contest:
    """One table, one space, one budget.

    Trainings take `training_scale` times as long as recorded, lowerings and measurements `lowering_scale` times.
    `drop`: hypervolume counts from this loss of accuracy on; None: from a tenth of it.
    """

    table: Table
    space: Space
    budget_s: float
    training_scale: float = 1.0
    lowering_scale: float = 1.0
    drop: float | None = None


class Plain:
    """A sampler asked for one recipe after the other, each a job: Optuna as people use it.

    It is spared what would cost it: a pair of dtype and mode that this machine cannot run is refused at no cost, it pays neither
    for processes nor for asking and telling through a database, and it uses the whole budget: it finalizes nothing.
    With our stage cache (`skips_known`), what was measured already is not run again but asked anew, at no cost either.
    """

    def __init__(
        self, contest: Contest, clock: Clock, sampler: str, seed: int, anchors: Iterable[Recipe], *, skips_known: bool
    ) -> None:
        self._table = contest.table
        self._skips_known = skips_known
        self._begun_recipes: set[Recipe] = set()
        self._proposer = Proposer(contest.space, sampler, seed)
        self._repeats = _GP_REPEATS if sampler == "gp" else _REPEATS
        self._random = Proposer(contest.space, "random", seed)
        self._objectives = contest.space.objectives
        self._budget = Budget(contest.budget_s, clock=clock)
        self._waiting = deque(anchors)
        self._asked: dict[int, Any] = {}
        self._numbers = itertools.count(1)
        self._reference: Any = None
        self._begun = False

    def next_job(self) -> Job | None:
        """The untouched model, then what the sampler proposes."""
        if self._reference is None:
            if self._begun:
                return None
            self._begun = True
            return self._job(JobKind.BASELINE, Recipe())
        if self._budget.left() <= 0:
            raise StopIteration
        if self._waiting:
            return self._job(JobKind.MEASURE, self._waiting.popleft())
        for ask in range(_DRY):
            # A converged sampler proposes what it knows again and again; a person would add something random.
            proposer = self._proposer if ask < self._repeats else self._random
            trial, recipe = proposer.propose()
            if recipe.lowering in self._table.graphs and not (self._skips_known and recipe in self._begun_recipes):
                job = self._job(JobKind.MEASURE, recipe)
                if proposer is self._proposer:
                    self._asked[job.number] = trial
                return job
            if proposer is self._proposer:
                (proposer.forget if recipe.lowering in self._table.graphs else proposer.reject)(trial)
        raise StopIteration

    def on_event(self, job: Job, event: Event) -> None:
        """Tell the sampler."""
        match event:
            case BaselineReady():
                self._reference = event.reference
            case RecipeMeasured():
                measured = event.measured
                values = values_of(measured.measurement, self._reference, PRICE, measured.train_seconds)
                numbers = [values[name] for name in self._objectives]
                if trial := self._asked.pop(job.number, None):
                    self._proposer.tell(trial, numbers, {})
                else:
                    self._proposer.learn(event.recipe, numbers, {})
            case RecipeFailed() if trial := self._asked.pop(job.number, None):
                self._proposer.reject(trial)

    def on_job_end(self, job: Job, error: str | None) -> None:
        """Nothing is queued again."""

    def _job(self, kind: JobKind, recipe: Recipe) -> Job:
        self._begun_recipes.add(recipe)
        return Job(next(self._numbers), kind, (recipe,), self._budget.deadline, "plain")


@dataclass(frozen=True)
class Strategy:
    """A row of the result. `build(contest, clock, seed)` makes the searcher."""

    name: str
    build: Callable[[Contest, Clock, int], Searcher]
    reuse: bool = True
    fresh_processes: bool = True


def _state(contest: Contest, tactics: Tactics, max_drop: float | None, *, guesses: bool) -> SearchState:
    table = contest.table
    tactics = replace(tactics, inheritance=tactics.inheritance and table.has_children)
    known = _guesses(contest) if guesses else NO_GUESSES
    settings = SearchSettings(
        contest.space, table.graphs, contest.budget_s, PRICE, tactics=tactics, workers=WORKERS, max_drop=max_drop,
        first_guesses=known,
    )  # fmt: skip
    expected = {pair: guess.seconds if (guess := known.lowering(pair)) else prior for pair, prior in table.priors.items()}
    return SearchState(settings, Planner(int(table.document["train_samples"]), expected))


def _guesses(contest: Contest) -> FirstGuesses:
    """The guesses from all families of models but the task's own: a search must not know what it is asked to find.

    None for a task whose model is not known.
    """
    known, name = known_families(), contest.table.document["task"]
    own = next((family.traits for family in known.families if family.name == name), TRAITS.get(name))
    return NO_GUESSES if own is None else known.guesses(own, INSTRUCTIONS[name], without=[name])


def _agent(
    tactics: Tactics = EVERYTHING,
    sampler: str = SearchConfig.sampler,
    max_drop: float | None = LARGEST_DROP,
    *,
    guesses: bool = True,
) -> Callable[[Contest, Clock, int], Agent]:
    def build(contest: Contest, clock: Clock, seed: int) -> Agent:
        return Agent(
            state=_state(contest, tactics, max_drop, guesses=guesses),
            store=MemoryTrialStore(contest.space.objectives),
            proposer=Proposer(contest.space, sampler, seed),
            budget=Budget(contest.budget_s, clock=clock),
        )

    return build


def _mo_asha(contest: Contest, clock: Clock, seed: int) -> Searcher:
    return MoAsha(_agent()(contest, clock, seed))


def _plain(sampler: str, *, with_anchors: bool = False, skips_known: bool = True) -> Callable[[Contest, Clock, int], Searcher]:
    def build(contest: Contest, clock: Clock, seed: int) -> Searcher:
        anchors = contest.space.anchors if with_anchors else ()
        return Plain(contest, clock, sampler, seed, anchors, skips_known=skips_known)

    return build


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        strategy.name: strategy
        for strategy in (
            Strategy("autocut", _agent()),
            Strategy("optuna tpe, nothing reused", _plain("tpe", skips_known=False), reuse=False, fresh_processes=False),
            Strategy(
                "optuna tpe + our anchors, nothing reused",
                _plain("tpe", with_anchors=True, skips_known=False),
                reuse=False,
                fresh_processes=False,
            ),
            Strategy("random, with our stage cache", _plain("random"), fresh_processes=False),
            Strategy("nsga2, with our stage cache", _plain("nsga2"), fresh_processes=False),
            Strategy("gp, with our stage cache", _plain("gp"), fresh_processes=False),
            Strategy("tpe, with our stage cache", _plain("tpe"), fresh_processes=False),
            Strategy("autocut without stage cache", _agent(), reuse=False),
            Strategy("autocut without fan-out", _agent(replace(EVERYTHING, fan_out=False))),
            Strategy("autocut without cost first", _agent(replace(EVERYTHING, cost_first=False))),
            Strategy("autocut without early stopping", _agent(replace(EVERYTHING, early_stopping=False))),
            Strategy("autocut without inheritance", _agent(replace(EVERYTHING, inheritance=False))),
            Strategy("autocut without gain per second", _agent(replace(EVERYTHING, gain_per_second=False))),
            Strategy("autocut without trained baseline", _agent(replace(EVERYTHING, trained_baseline=False))),
            Strategy("autocut without a largest drop", _agent(max_drop=None)),
            Strategy("autocut without first guesses", _agent(guesses=False)),
            Strategy("autocut, MO-ASHA's stopping rule", _mo_asha),
            Strategy("autocut, tpe sampler", _agent(sampler="tpe")),
            Strategy("autocut, random sampler", _agent(sampler="random")),
        )
    }
)
