"""Memory: no second job where it does not fit, and a reason where it ran out."""

from dataclasses import dataclass, replace

import pytest

from autocut.measure.memory import MachineMemory
from autocut.search.jobs import JobEnded, JobKind, RecipeStarted, TrainingPaced


@dataclass
class Gigabytes:
    """A machine with this much free memory."""

    free: float
    kills: int = 0

    def available_bytes(self):
        """What new processes can get."""
        return 1e9 * self.free

    def oom_kills(self):
        """What the kernel has killed."""
        return self.kills


@pytest.fixture
def crowd(start):
    """A search with two workers, one of which needed six gigabytes to lower a model: `crowd(memory)`."""

    def make(memory):
        machine = start(workers=2, memory=memory)
        machine.run(most_jobs=1)
        lowering = replace(machine.jobs[0], kind=JobKind.MEASURE)
        machine.searcher.on_event(lowering, JobEnded(0.0, 1.0, 6_000_000_000))
        return machine

    return make


def test_no_second_job_starts_that_does_not_fit(crowd):
    """The first one always may; the user is told once why a worker idles."""
    machine = crowd(Gigabytes(10.0))
    agent = machine.searcher

    assert agent.next_job() is not None
    assert agent.next_job() is None
    assert agent.next_job() is None
    assert list(agent.progress.lines).count("memory: 1 at a time: a job may need 6.00GB, and 10.0GB are there for all") == 1


def test_nothing_is_priced_beside_a_training_where_it_does_not_fit(start):
    """The memory that is there is known from the first job on."""
    agent = start(workers=2, memory=Gigabytes(10.0)).searcher
    training = agent.next_job()
    agent.on_event(training, TrainingPaced(400.0))
    agent.state.planner.observe_memory(6_000_000_000)
    assert agent.next_job() is None

    agent.state.planner._peak_bytes = 5_000_000_000
    assert agent.next_job().kind is JobKind.PRICE


def test_two_jobs_that_fit_run_side_by_side(crowd):
    """Memory that is there keeps nobody waiting."""
    agent = crowd(Gigabytes(13.0)).searcher

    assert agent.next_job() is not None
    assert agent.next_job() is not None


def test_a_search_with_little_memory_goes_on_one_by_one(crowd):
    """It loses time, not points."""
    machine = crowd(Gigabytes(1.0))
    machine.run()

    assert machine.searcher.store.finals


def test_before_a_job_has_ended_the_size_of_the_model_tells_what_one_needs(start):
    """The untouched model's own job says nothing of exports and compilers, unless it needed more than that."""
    machine = start()
    machine.run(most_jobs=1)
    state, job = machine.searcher.state, machine.jobs[0]
    machine.searcher.on_event(job, JobEnded(0.0, 1.0, 1000))
    assert state.planner.job_bytes() == pytest.approx(8 * state.reference.size_bytes)

    machine.searcher.on_event(job, JobEnded(0.0, 1.0, 6_000_000_000))
    assert state.planner.job_bytes() == 6_000_000_000

    machine.searcher.on_event(replace(job, kind=JobKind.MEASURE), JobEnded(0.0, 1.0, 7_000_000_000))
    assert state.planner.job_bytes() == 7_000_000_000


def test_a_kill_for_want_of_memory_ends_one_trial_with_that_reason(crowd):
    """Its worker says nothing any more; the kernel counts such kills."""
    memory = Gigabytes(13.0)
    machine = crowd(memory)
    agent = machine.searcher
    job, _ = agent.next_job(), agent.next_job()
    agent.on_event(job, RecipeStarted(job.recipes[0]))
    memory.kills = 1
    agent.on_job_end(job, "the worker process died")
    failures = agent.store.failures

    assert [failure.recipe for failure in failures] == [job.recipes[0]]
    assert failures[0].reason.startswith("out of memory: the kernel ended its worker")
    assert agent.next_job() is None  # two at a time were too many


def test_another_death_is_no_want_of_memory(crowd):
    """The counter of the kernel stood where it was."""
    machine = crowd(Gigabytes(13.0, kills=3))
    agent = machine.searcher
    job = agent.next_job()
    agent.on_event(job, RecipeStarted(job.recipes[0]))
    agent.on_job_end(job, "the worker process died")

    assert agent.store.failures[0].reason == "the worker process died"


def test_this_machine_tells_its_free_memory():
    """More than nothing, and no more than it has."""
    import psutil

    memory = MachineMemory()

    assert 0 < memory.available_bytes() <= psutil.virtual_memory().total
    assert memory.oom_kills() >= 0


def test_who_was_killed_beside_another_for_want_of_memory_is_tried_again(crowd):
    """With fewer at a time. The one that needs too much alone is blamed."""
    memory = Gigabytes(13.0)
    machine = crowd(memory)
    agent = machine.searcher
    job, other = agent.next_job(), agent.next_job()
    agent.on_event(job, RecipeStarted(job.recipes[0]))
    memory.kills = 1
    agent.on_job_end(job, "killed", is_blameless=True)
    agent.on_job_end(other, None)
    assert not agent.store.failures
    again = agent.next_job()
    assert again.recipes == job.recipes
    agent.on_event(again, RecipeStarted(again.recipes[0]))
    memory.kills = 2
    agent.on_job_end(again, "killed", is_blameless=True)

    assert agent.store.failures[0].reason.startswith("out of memory")
