"""Two searches of one study: real agents and a real study in simulated time, one process for both."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest
from simulation import Clock, Simulation

from autocut.budget import Budget
from autocut.config import SearchConfig
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.agent import Agent
from autocut.search.companions import StudyCompanions
from autocut.search.jobs import JobKind, Purpose, RecipeFailed
from autocut.search.planner import Planner
from autocut.search.proposals import Proposer
from autocut.search.recall import recall
from autocut.search.settings import EVERYTHING, SearchSettings
from autocut.search.state import SearchState
from autocut.search.trial_store import StudyTrialStore
from autocut.space import load_space
from autocut.space.axes import fit_space
from autocut.study import Study, create_study
from tests.fakes import KNOWN

from .conftest import GRAPHS, PRICE, SECONDS, UNFIT, MadeUp

TRAINED = {"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 2, "train.lr_scale": 1.0}


@dataclass
class Searching:
    """One search of the study, and the machine that it runs on."""

    study: Study
    machine: Simulation
    companions: StudyCompanions

    @property
    def state(self):
        """What it knows."""
        return self.machine.searcher.state

    def measured(self):
        """The recipes that it has measured itself."""
        return [recipe for what, recipe in self.machine.log if what == "measure"]

    def finalized(self):
        """The recipes that it has finalized itself."""
        return [recipe for what, recipe in self.machine.log if what == "finalize"]

    def die(self):
        """End as by `kill -9`: nothing is written, and the kernel releases the locks."""
        self.study.lock.release()


class StagesMade(set):
    """Keys of the stages that all machines have made. `twice` are those that two have made at the same time."""

    def __init__(self):
        super().__init__()
        self.twice = []

    def add(self, key):
        """Note a stage that has just been made."""
        self.twice += [key] if key in self else []
        super().add(key)


class WithoutBundles(StudyTrialStore):
    """The made-up machine writes no bundles."""

    def finalize(self, finalized, values):
        """Record the numbers alone."""
        super().finalize(replace(finalized, bundle=None, digest=None), values)


@pytest.fixture
def join(tmp_path):
    """Begin one more search of the study: `join(budget_s=..., at=...)`. They share the stages that they have made."""
    studies, made = [], StagesMade()

    def begin(budget_s=200.0, at=1000.0, workers=1, deadly=()):
        space = fit_space(load_space("default", KNOWN), UNFIT)
        study = create_study(
            tmp_path / "study", name="made", task_fingerprint="t", space_json="{}", objectives=space.objectives, seed=0
        )
        studies.append(study)
        study.begin_session("autocut search", {})
        lock = study.lock
        known = len(study.trials()) + (1000 * lock.session if lock.others() else 0)
        proposer = Proposer(space, SearchConfig.sampler, 0, known_trials=known)
        store = WithoutBundles(study, proposer)
        interrupted = tuple(store.close_interrupted(lock.others()))
        study.bookings.keep_those_of(lock.others())
        settings = SearchSettings(space, GRAPHS, budget_s, PRICE, (), interrupted, EVERYTHING, workers, None)
        state = SearchState(settings, Planner(1000, {lowering: SECONDS[lowering[1]] for lowering in GRAPHS}))
        recall(study, state, proposer)
        companions = StudyCompanions(store, state, proposer, lock)
        lock.end_turn()
        clock = Clock(at)
        agent = Agent(state=state, store=store, proposer=proposer, budget=Budget(budget_s, clock=clock), companions=companions)
        machine = Simulation(agent, MadeUp(deadly=set(deadly)), clock, workers)
        machine._made = made
        return Searching(study, machine, companions)

    yield begin
    for study in studies:
        study.close()


def run_together(*searches, until=lambda: False):
    """Let the searches run side by side: whoever is behind on the clock makes the next step."""
    going = list(searches)
    while going and not until():
        behind = min(going, key=lambda one: one.machine.clock.now)
        if not behind.machine.step():
            going.remove(behind)


def test_two_searches_share_a_study_and_try_no_recipe_twice(join):
    """Nor is anything trained or finalized twice. Each one knows in the end what both have found."""
    first, second = join(), join(at=1004.0)
    run_together(first, second)

    tried = Counter(first.measured() + second.measured())
    assert max(tried.values()) == 1
    assert min(len(first.measured()), len(second.measured())) > 10
    assert max(Counter(first.finalized() + second.finalized()).values()) == 1
    assert [job.kind for job in first.machine.jobs + second.machine.jobs].count(JobKind.BASELINE) == 1
    assert first.machine._made.twice == []
    for one in (first, second):
        one.study.refresh()
    assert [point.trial for point in first.study.front()] == [point.trial for point in second.study.front()]
    assert {trial.recipe for trial in first.study.trials() if trial.measured} == set(tried)
    assert not first.study.running()
    assert not first.study.bookings.all()


def test_the_second_search_waits_for_the_untouched_model_and_takes_it_over_from_a_dead_one(join):
    """It is measured once, for it is what every other number refers to."""
    first, second = join(), join()
    run_together(first, second, until=lambda: second.machine.clock.now > 1006)
    assert [job.kind for job in first.machine.jobs] == [JobKind.BASELINE]
    assert second.machine.jobs == []
    assert "together: another search measures the untouched model; this one waits for it" in second.companions.news

    first.die()
    run_together(second, until=lambda: UNTOUCHED in second.state.finished)
    assert second.machine.jobs[0].kind == JobKind.BASELINE


def test_what_a_killed_search_worked_on_is_tried_by_the_other(join):
    """Its running trials are closed as interrupted, and the other search goes on with their recipes."""
    first, second = join(workers=2, budget_s=600.0), join(at=1001.0, budget_s=600.0)
    run_together(first, second, until=lambda: len(first.state.open) > 1)
    left = {booking.recipe for booking in first.study.bookings.all() if booking.session == first.study.lock.session}
    open_before = [trial.number for trial in first.study.running()]
    first.die()
    run_together(second)

    assert left
    assert left - set(first.measured()) <= second.state.finished.keys() | second.state.infeasible | second.state.given_up
    ended = {trial.trial: trial for trial in second.study.trials()}
    assert all(number in ended for number in open_before)
    assert not second.study.running()
    assert not second.study.bookings.all()
    assert max(Counter(first.measured() + second.measured()).values()) == 1
    assert [line for line in second.companions.news if line.startswith("together: process ")]


def test_a_recipe_that_another_search_has_booked_is_not_proposed(join):
    """The booking decides: not even two that draw the same numbers begin the same recipe."""
    first, second = join(), join()
    run_together(first, second, until=lambda: len(first.state.finished) > 8 and second.state.open)
    (recipe,) = list(second.state.open)[:1]

    assert first.companions.book((recipe,), Purpose.PROPOSAL) == ()
    assert recipe in first.state.elsewhere


def test_a_search_alone_does_what_one_does_that_never_has_company(join, start):
    """It books what it works on all the same, because another search may begin at any moment."""
    alone, plain = join(budget_s=150.0), start(budget_s=150.0)
    run_together(alone)
    plain.run()

    assert alone.machine.log == plain.log
    assert alone.companions.is_first
    assert alone.companions.news == []


def test_a_training_that_another_search_has_stopped_is_not_tried_again(join):
    """One trial tells that it was stopped. Its other lowerings were booked too, and are no work that was left."""
    first, second = join(), join()
    run_together(first, second, until=lambda: UNTOUCHED in second.state.finished)
    siblings = [Recipe({**TRAINED, "quantize.dtype": dtype, "compile.mode": "onnxruntime"}) for dtype in ("fp32", "int8_static")]
    assert first.companions.book(siblings, Purpose.PROPOSAL) == tuple(siblings)
    second.companions.book((), Purpose.PROPOSAL)
    assert second.state.is_in_training(siblings[0].prefix)

    first.machine.searcher.results.record_failed(RecipeFailed(siblings[0], "stopped", "below its floor"))
    first.companions.free(siblings)
    second.companions.book((), Purpose.PROPOSAL)
    assert siblings[0] in second.state.given_up
    assert [recipe for planned in second.companions.look(0.0) for recipe in planned.recipes] == []


def test_what_another_search_lets_go_of_is_left_to_this_one(join):
    """Its time was up before it had a result."""
    first, second = join(), join()
    run_together(first, second, until=lambda: UNTOUCHED in second.state.finished)
    recipe = Recipe({**TRAINED, "compile.mode": "onnxruntime"})
    assert first.companions.book((recipe,), Purpose.ANCHOR) == (recipe,)
    assert second.companions.book((recipe,), Purpose.ANCHOR) == ()

    first.companions.free((recipe,))
    assert second.companions.book((recipe,), Purpose.ANCHOR) == (recipe,)
    (planned,) = second.companions.look(0.0)
    assert planned.recipes == (recipe,)
    assert planned.may_skip
