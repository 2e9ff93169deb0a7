"""A model that takes minutes to measure: something to deploy comes first, everything else after it."""

from dataclasses import replace

import pytest
from simulation import Stage

from autocut.recipe import UNTOUCHED
from autocut.search.jobs import JobKind
from autocut.search.lowerings import affordable_lowerings, is_cheap

from .conftest import MadeUp, cost_of


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
    """Begin a search of that world: `slow(budget_s)`."""

    def make(budget_s):
        machine = start(budget_s=budget_s, workers=2, space_name="deploy-only")
        machine.world = Slow()
        return machine

    return make


@pytest.mark.parametrize("budget_s", [360.0, 900.0])
def test_a_good_lowering_is_finalized_before_the_others_are_measured(slow, budget_s):
    """Six minutes leave more than nothing."""
    machine = slow(budget_s)
    machine.run()

    kinds = [job.kind for job in machine.jobs]
    measured_before = kinds[: kinds.index(JobKind.FINALIZE)].count(JobKind.MEASURE)
    first = next(recipe for what, recipe in machine.log if what == "finalize")
    assert measured_before <= 3
    assert first.prefix == UNTOUCHED
    assert first != UNTOUCHED
    assert machine.searcher.budget.spent() <= budget_s + 1


def test_each_lowering_of_a_slow_model_is_a_job_of_its_own(slow):
    """A worker between two jobs can finalize; one in the middle of four lowerings cannot."""
    machine = slow(900.0)
    machine.run(most_jobs=4)

    assert [len(job.recipes) for job in machine.jobs] == [1, 1, 1, 1]


def test_a_slow_model_is_no_reason_to_leave_its_lowerings_out(slow):
    """What a lowering takes is compared with what measuring takes anyway: all of them are slow by the clock."""
    machine = slow(360.0)
    machine.run(most_jobs=1)

    state = machine.searcher.state
    assert state.planner.measuring_s() > 36.0  # a tenth of the budget, above which a lowering would be left out
    assert ("int8_static", "onnxruntime") in affordable_lowerings(state)
    assert is_cheap(state, ("int8_static", "onnxruntime"))
