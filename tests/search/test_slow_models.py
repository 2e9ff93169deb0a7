"""A model that takes minutes to measure: something to deploy comes first, everything else after it."""

from dataclasses import replace

import pytest
from simulation import Stage

from autocut.measurement import Interval
from autocut.recipe import UNTOUCHED
from autocut.search.early_bundles import early_bundle
from autocut.search.finalists import finalists, good_points, next_finalists, reserve_s
from autocut.search.jobs import (
    JobKind,
    ModelLoaded,
    Purpose,
    RecipeFailed,
    RecipeFinalized,
    RecipeMeasured,
    RecipeStarted,
    ScoringPlan,
    ScoringPlanned,
    StageRan,
    Waited,
)
from autocut.search.lowerings import affordable_lowerings, is_cheap

from .conftest import GRAPHS, MadeUp, cost_of


class Slow(MadeUp):
    """The made-up world with a model of 0.3 s a call: scoring takes 50 s, timing 20 s alone."""

    process_s = 1.0
    finalize_s = 70.0

    def lowering(self, recipe):
        """Compile, score, time."""
        compiling = super().lowering(recipe)
        return (
            *compiling,
            Stage(f"accuracy {recipe.fingerprint}", "accuracy", "graph", 50.0, "measuring"),
            Stage(f"cost {recipe.fingerprint}", "cost", "/".join(recipe.lowering), 20.0, "measuring", alone=True),
        )

    def measured(self, recipe):
        """Thirty times as slow as in the made-up world."""
        found, cost = super().measured(recipe), cost_of(recipe)
        latency = cost.latencies[0]
        slow = replace(latency, p50_ms=replace(latency.p50_ms, value=30 * latency.p50_ms.value))
        return replace(found, measurement=replace(found.measurement, cost=replace(cost, latencies=(slow,))))


@pytest.fixture
def slow(start):
    """Begin a search of that world: `slow(budget_s)`, with two workers or as many as are given."""

    def make(budget_s, workers=2):
        machine = start(budget_s=budget_s, workers=workers, space_name="deploy-only")
        machine.world = Slow()
        return machine

    return make


@pytest.mark.parametrize("budget_s", [360.0, 900.0])
def test_a_good_lowering_is_finalized_before_the_others_are_measured(slow, budget_s):
    """Six minutes leave more than nothing."""
    machine = slow(budget_s)
    machine.run()

    first = next(job for job in machine.jobs if job.kind == JobKind.FINALIZE and job.recipes != (UNTOUCHED,))
    measured_before = [job.kind for job in machine.jobs[: machine.jobs.index(first)]].count(JobKind.MEASURE)
    assert measured_before <= 3
    assert first.recipes[0].prefix == UNTOUCHED
    assert first.is_urgent
    assert [job for job in machine.jobs if job.is_urgent] == [first]  # from then on there is something to deploy
    assert machine.searcher.budget.spent() <= budget_s + 1


def test_each_lowering_of_a_slow_model_is_a_job_of_its_own(slow):
    """A worker between two jobs can finalize; one in the middle of four lowerings cannot."""
    machine = slow(900.0)
    machine.run(most_jobs=4)

    assert [len(job.recipes) for job in machine.jobs] == [1, 1, 1, 1]
    assert [job.kind for job in machine.jobs].count(JobKind.MEASURE) == 2


def test_a_slow_model_is_no_reason_to_leave_its_lowerings_out(slow):
    """What a lowering takes is compared with what measuring takes anyway: all of them are slow by the clock."""
    machine = slow(360.0)
    machine.run(most_jobs=1)

    state = machine.searcher.state
    assert state.planner.measuring_s() > 36.0  # a tenth of the budget, above which a lowering would be left out
    assert ("int8_static", "onnxruntime") in affordable_lowerings(state)
    assert is_cheap(state, ("int8_static", "onnxruntime"))


@pytest.mark.parametrize("workers", [1, 2])
def test_where_it_can_be_pruned_too_one_form_comes_before_that(start, workers):
    """However long measuring takes beside the budget: a cut that is timed in eager mode alone says little."""
    machine = start(budget_s=900.0, workers=workers)
    machine.world = Slow()
    machine.run(most_jobs=16)
    measured = [recipe for job in machine.jobs if job.kind == JobKind.MEASURE for recipe in job.recipes]
    forms = [recipe for recipe in measured if recipe.prefix == UNTOUCHED]

    assert machine.searcher.state.planner.is_slow
    assert measured[0] in forms
    assert any(recipe.prefix != UNTOUCHED for recipe in measured)
    assert len(forms) < len(GRAPHS) - 1


def test_the_second_worker_scores_the_untouched_model_on_the_test_split(slow):
    """Every bundle is compared with it, and the first one must not wait for that; other lowerings come after it."""
    machine = slow(900.0)
    machine.run(most_jobs=3)
    _, first, beside = machine.jobs

    assert first.kind == JobKind.MEASURE
    assert (beside.kind, beside.recipes, beside.is_urgent) == (JobKind.FINALIZE, (UNTOUCHED,), False)


def test_the_first_lowering_is_made_while_the_untouched_model_is_scored(slow):
    """That takes half a minute, and lowering needs no score. It is measured as soon as a worker is free, whether made or not."""
    machine = slow(900.0)
    agent = machine.searcher
    baseline = agent.next_job()
    assert agent.next_job() is None
    agent.on_event(baseline, ScoringPlanned(ScoringPlan(100, 256, 0.3), 438_000_000))
    prepared = agent.next_job()

    assert (prepared.kind, len(prepared.recipes)) == (JobKind.PREPARE, 1)
    assert prepared.recipes[0].prefix == UNTOUCHED
    assert not agent.state.is_running(prepared.recipes[0])
    assert agent.next_job() is None  # one is enough: the other core scores
    agent.on_event(prepared, RecipeFailed(prepared.recipes[0], "failed", "told when it is measured"))
    assert not agent.state.is_settled(prepared.recipes[0])


def test_nothing_is_prepared_for_a_model_that_is_scored_quickly(slow):
    """It is lowered in seconds anyway."""
    agent = slow(900.0).searcher
    assert agent.next_job().kind == JobKind.BASELINE
    assert agent.next_job() is None


def test_a_single_worker_scores_the_untouched_model_after_its_first_point(slow):
    """By then its scores on the test split are there, because the point was compared with them."""
    machine = slow(900.0, workers=1)
    machine.run()
    first = next(job for job in machine.jobs if job.kind == JobKind.FINALIZE)

    assert first.recipes[0] != UNTOUCHED
    assert first.recipes[1:] == (UNTOUCHED,)


def test_two_workers_take_lowerings_that_do_not_wait_for_one_another(slow):
    """A narrower dtype that needs no conversion, and the first of those that share one; each of them before the same dtype."""
    machine = slow(900.0)
    machine.run(most_jobs=4)
    first, second = (job.recipes[0].lowering for job in machine.jobs[1:] if job.kind == JobKind.MEASURE)

    assert first == ("bf16", "eager")
    assert second == ("int8_static", "onnxruntime")


def _measured(machine, lowering, *, accuracy, difference, speedup):
    """Let the untouched weights have been measured in `lowering` with these numbers; intervals are (value, low, high)."""
    recipe = UNTOUCHED.with_lowering(*lowering)
    found = machine.world.measured(recipe)
    cost = found.measurement.cost
    latency = replace(cost.latencies[0], speedup=Interval(*speedup))
    scored = replace(found.measurement.accuracy, metric=Interval(accuracy, accuracy, accuracy), difference=Interval(*difference))
    measurement = replace(found.measurement, accuracy=scored, cost=replace(cost, latencies=(latency,)))
    job = replace(machine.jobs[-1], kind=JobKind.MEASURE)
    machine.searcher.on_event(job, RecipeMeasured(recipe, replace(found, measurement=measurement)))
    return recipe


@pytest.mark.parametrize(
    ("difference", "speedup", "good"),
    [
        ((-0.03, -0.08, 0.02), (3.0, 2.9, 3.1), True),  # of a hundred examples: a tie
        ((-0.03, -0.04, -0.02), (3.0, 2.9, 3.1), False),  # certainly worse
        ((0.0, -0.01, 0.01), (1.02, 0.97, 1.06), False),  # perhaps no faster
    ],
)
def test_whether_a_point_is_good_does_not_depend_on_noise(slow, difference, speedup, good):
    """The interval decides, of the accuracy in favour of the point, of the speed-up against it."""
    machine = slow(900.0)
    machine.run(most_jobs=1)
    recipe = _measured(machine, ("int8_static", "onnxruntime"), accuracy=0.95, difference=difference, speedup=speedup)

    assert (recipe in good_points(machine.searcher.state, machine.searcher.store)) is good


def test_time_is_kept_for_one_point_until_more_are_found(slow):
    """Four slow points would take all of a short budget, and none could be found any more."""
    machine = slow(900.0)
    machine.run(most_jobs=1)
    state, store = machine.searcher.state, machine.searcher.store
    one = reserve_s(state, store, 900.0)
    as_accurate = (0.0, -0.01, 0.01)
    _measured(machine, ("bf16", "eager"), accuracy=0.98, difference=as_accurate, speedup=(2.0, 1.9, 2.1))
    _measured(machine, ("int8_static", "eager"), accuracy=0.97, difference=as_accurate, speedup=(3.0, 2.9, 3.1))

    assert one < state.planner.reserve_s(1, 2, 900.0)  # nothing waits yet: what is found late is finalized in a hurry
    assert reserve_s(state, store, 900.0) == state.planner.reserve_s(2, 2, 900.0)
    assert list(finalists(state, store))[-1] == UNTOUCHED


def test_a_refused_first_point_is_followed_by_another_one(slow):
    """A search that has no verified bundle yet is in want of one."""
    machine = slow(900.0)
    machine.world.broken_to_finalize = {UNTOUCHED.with_lowering("int8_static", "onnxruntime")}
    failure = machine.world.failure
    machine.world.failure = lambda kind, recipe: (
        "failed" if kind == "finalize" and recipe in machine.world.broken_to_finalize else failure(kind, recipe)
    )
    machine.run()
    kinds = [job.kind for job in machine.jobs]

    assert machine.searcher.state.verified
    assert JobKind.MEASURE in kinds[kinds.index(JobKind.FINALIZE) :]


def test_what_there_is_to_deploy_keeps_up_with_what_was_found(slow):
    """A form that is twice as fast as the only bundle is finalized before more is measured; one a little faster waits a while."""
    machine = slow(1800.0)
    machine.run(most_jobs=1)
    agent, exact = machine.searcher, (0.0, -0.01, 0.01)
    state, store = agent.state, agent.store
    deployed = _measured(machine, ("fp32", "aot_inductor"), accuracy=0.98, difference=exact, speedup=(2.0, 1.9, 2.1))
    state.finalized.add(deployed)
    state.verified.add(deployed)
    faster = _measured(machine, ("int8_static", "aot_inductor"), accuracy=0.98, difference=exact, speedup=(2.5, 2.4, 2.6))
    long_ago = replace(agent.budget, started=agent.budget.started - 10 * state.planner.finalize_s())
    assert early_bundle(state, store, agent.budget) is None
    assert next(iter(early_bundle(state, store, long_ago))) == faster  # little of the time has gone to finalizing

    much_faster = _measured(machine, ("int8_static", "onnxruntime"), accuracy=0.97, difference=exact, speedup=(4.7, 4.6, 4.8))
    assert next(iter(early_bundle(state, store, agent.budget))) == much_faster
    assert agent.next_job().recipes[0] == much_faster


def test_each_runtime_gets_a_bundle_while_the_search_goes_on_if_it_is_nearly_as_good(slow):
    """What is deployed is also a choice of the runtime. A second form of the same runtime waits for the end."""
    machine = slow(1800.0)
    machine.run(most_jobs=1)
    agent, exact = machine.searcher, (0.0, -0.01, 0.01)
    state, store = agent.state, agent.store
    long_ago = replace(agent.budget, started=agent.budget.started - 6 * state.planner.finalize_s())
    best = _measured(machine, ("int8_static", "aot_inductor"), accuracy=0.98, difference=exact, speedup=(2.8, 2.7, 2.9))
    state.finalized.add(best)
    state.verified.add(best)
    _measured(machine, ("fp32", "aot_inductor"), accuracy=0.98, difference=exact, speedup=(2.7, 2.6, 2.8))
    assert early_bundle(state, store, long_ago) is None
    late = replace(agent.budget, started=agent.budget.started - 0.6 * agent.budget.total_s)
    assert early_bundle(state, store, late) is not None, "it would be finalized at the end anyway"

    other = _measured(machine, ("int8_static", "onnxruntime"), accuracy=0.97, difference=exact, speedup=(2.6, 2.5, 2.7))
    assert next(iter(early_bundle(state, store, long_ago))) == other
    assert early_bundle(state, store, agent.budget) is None, "finalizing has had its share of the time"


def test_the_first_lowering_is_the_quickest_that_is_worth_having(slow):
    """The fastest form may take minutes to make; by then there should be something to deploy."""
    machine = slow(900.0)
    settings = machine.searcher.state.settings
    guesses = dict.fromkeys(settings.graphs, 1.1) | {("bf16", "eager"): 1.6, ("int8_static", "onnxruntime"): 40.0}
    machine.searcher.state.settings = replace(settings, registered_speedups=guesses)
    machine.run(most_jobs=4)
    measured = [job.recipes[0].lowering for job in machine.jobs[1:] if job.kind == JobKind.MEASURE]

    assert measured == [("bf16", "eager"), ("int8_static", "onnxruntime")]


def test_a_worker_without_work_finalizes_what_waits(slow):
    """While the other worker makes the last lowering, which takes long, it does not wait for what that brings."""
    machine = slow(600.0)
    machine.run()
    done = [what for what, _ in machine.log]
    last_measured = len(done) - 1 - done[::-1].index("measure")

    assert done[:last_measured].count("finalize") > 2  # the first good point and the untouched model are always that early


EXACT = (0.0, -0.01, 0.01)


def begun(slow):
    """A search that has measured the untouched model: its machine, state and store, and the reading of its clock."""
    machine = slow(1800.0)
    machine.run(most_jobs=1)
    agent = machine.searcher
    return machine, agent.state, agent.store, agent.budget.clock()


def test_two_finalizations_that_would_keep_each_other_from_ending_are_not_begun(slow):
    """Most of each holds the machine alone. The second one begins where the rest of the first leaves time for it."""
    machine, state, store, now = begun(slow)
    one = _measured(machine, ("int8_static", "onnxruntime"), accuracy=0.98, difference=EXACT, speedup=(4.0, 3.9, 4.1))
    other = _measured(machine, ("fp32", "onnxruntime"), accuracy=0.99, difference=EXACT, speedup=(2.5, 2.4, 2.6))
    each = state.planner.finalize_s()
    assert list(next_finalists(state, store, 1.2 * each, now)) == [one]

    job = replace(machine.jobs[-1], number=99, kind=JobKind.FINALIZE, recipes=(one,))
    state.start(job, Purpose.FINALIZATION, now)

    assert next_finalists(state, store, 1.2 * each, now) == {}
    assert list(next_finalists(state, store, 1.2 * each, now + 0.9 * each)) == [other]
    assert list(next_finalists(state, store, 2.0 * each, now)) == [other]


def test_a_form_that_compiles_while_it_loads_waits_for_one_that_surely_fits(slow):
    """The process that verifies a bundle has no cache: it compiles again."""
    machine, state, store, now = begun(slow)
    compiled = _measured(machine, ("fp32", "aot_inductor"), accuracy=0.98, difference=EXACT, speedup=(4.0, 3.9, 4.1))
    quick = _measured(machine, ("fp32", "onnxruntime"), accuracy=0.99, difference=EXACT, speedup=(2.5, 2.4, 2.6))
    each = state.planner.finalize_s()
    assert next(iter(next_finalists(state, store, 1.2 * each, now))) == compiled

    state.planner.observe_loading(ModelLoaded("fp32/aot_inductor", 0.5 * each))

    assert state.planner.finalize_s(compiled.lowering) == 1.5 * each
    assert next(iter(next_finalists(state, store, 1.2 * each, now))) == quick
    assert next(iter(next_finalists(state, store, 2.0 * each, now))) == compiled


def test_what_one_finalization_took_tells_what_the_next_one_takes_without_the_untouched_models_scores(slow):
    """The first finalization has made them. "A finalization takes 2 minutes: 0 fit" was told where the second one took 36 s."""
    machine, state, _, now = begun(slow)
    recipe = _measured(machine, ("int8_static", "onnxruntime"), accuracy=0.98, difference=EXACT, speedup=(4.0, 3.9, 4.1))
    measurement = machine.world.measured(recipe).measurement
    job = replace(machine.jobs[-1], number=99, kind=JobKind.FINALIZE, recipes=(recipe,))
    state.start(job, Purpose.FINALIZATION, now)
    for event, seconds in (
        (RecipeStarted(recipe), 0.0),
        (StageRan("key", "accuracy", "untouched/test", 50.0, cached=False, category="measuring"), 60.0),
        (Waited(10.0), 61.0),
        (RecipeFinalized(recipe, measurement, "bundle", "digest", None), 96.0),
    ):
        state.apply(job, event, now + seconds)

    assert state.planner.finalize_s() == state.planner.finalize_more_s() == pytest.approx(36.0)
