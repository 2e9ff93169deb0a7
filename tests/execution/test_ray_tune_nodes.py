"""The executor where jobs run on the nodes of a cluster: which node a job gets, what waits, and what a lost node takes along."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from autocut.execution.executor import WorkerGone
from autocut.execution.ray_tune import _KeepingScheduler
from autocut.recipe import Recipe
from autocut.search.jobs import Job, JobEnded, JobKind, RecipeFailed, Waited
from tests.execution.conftest import FIRST, GONE, SECOND, Tune, can_time


class Nodes:
    """Two nodes of a cluster with room for one job each; the test says which are lost."""

    def __init__(self):
        self.jobs, self.calls, self.lost = [], [], []
        self.is_timing = self.is_held = False
        self.has_room_to_train = False

    @property
    def has_room(self):
        """See `Nodes`."""
        return len(self.jobs) < 2

    def hold(self):
        """See `Nodes`."""
        self.is_held = not self.is_timing and self.has_room
        return self.is_held

    def let_go(self):
        """See `Nodes`."""
        self.is_held = False
        self.calls.append("let go")

    def take(self, job):
        """See `Nodes`."""
        self.jobs.append(job)
        self.is_held = False
        return f"place of {job}"

    def take_to_train(self, job):
        """See `Nodes`. There is room for one training."""
        self.has_room_to_train = False
        self.jobs.append(job)
        return f"training place of {job}"

    def release(self, job):
        """See `Nodes`."""
        self.calls.append(f"release {job}")

    def give_back(self, job):
        """See `Nodes`."""
        self.jobs.remove(job)

    def look_after(self):
        """See `Nodes`."""
        lost, self.lost = self.lost, []
        self.jobs = [job for job in self.jobs if job not in lost]
        return [f"lost: {job}" for job in lost], lost


@pytest.fixture
def nodes(pool):
    """The nodes of the pool, whose own machine runs no jobs."""
    pool.fork_server, pool.nodes = None, Nodes()
    pool.open()
    return pool.nodes


def test_a_job_of_a_cluster_is_given_the_place_of_its_node(pool, nodes, lock):
    """The node is held until the job is up; the driver's own machine is not."""
    tune = Tune(pool)
    tune.ask()
    assert tune.executor.reserve()
    tune.executor.submit(FIRST)

    assert tune.answer() == {"job": FIRST, "place": "place of job 1"}
    assert can_time(lock)
    assert tune.events(FIRST, "up", GONE) == [(FIRST, "up"), (FIRST, GONE)]
    assert nodes.calls[0] == "release job 1"
    assert nodes.jobs == []


def test_a_cluster_without_a_free_node_is_not_held_up_and_one_that_times_is(pool, nodes):
    """The ledger counts the second as waiting. Tune gets one answer for each question."""
    tune = Tune(pool)
    tune.ask()
    nodes.is_timing = True
    assert not tune.executor.reserve()
    assert tune.executor.is_held_up
    assert tune.answer() == "nothing yet"

    nodes.is_timing = False
    for job in (FIRST, SECOND):
        tune.ask()
        assert tune.executor.reserve()
        tune.executor.submit(job)
        assert tune.answer()["job"] == job
    assert not tune.executor.reserve()
    assert tune.answer() == "nothing yet"
    tune.ask()
    assert not tune.executor.reserve()
    assert not tune.executor.is_held_up
    assert tune.answer() is None


def test_jobs_of_a_lost_node_are_gone_without_blame_and_only_once(pool, nodes):
    """Whatever Tune says of them later; a trial that waits for the node is stopped."""
    tune = Tune(pool)
    for job in (FIRST, SECOND):
        tune.ask()
        tune.executor.reserve()
        tune.executor.submit(job)
    nodes.lost = ["job 2"]
    gone = tune.events()
    assert gone == [(SECOND, WorkerGone("the node of the worker is lost", is_blameless=True))]
    assert tune.lines == ["lost: job 2"]
    assert tune.events(SECOND, "up", GONE) == []

    trials = [SimpleNamespace(config={"job": job}, status="PENDING", PENDING="PENDING") for job in (FIRST, SECOND)]
    stopped = []
    scheduler = _KeepingScheduler(tune.channel, workers=2)
    scheduler._stop_lost(SimpleNamespace(get_live_trials=lambda: trials, request_stop_trial=stopped.append))
    assert stopped == [trials[1]]
    assert tune.channel.lost == set()


def test_a_job_trains_where_nothing_is_timed_and_measures_later_where_it_is(pool, nodes):
    """To the agent it stays one job. While the node that measures is timing, the second half waits, and then goes first."""
    job = Job(1, JobKind.MEASURE, (Recipe(), Recipe({"train.epochs": 1})), 0.0, "test")
    tune = Tune(pool, trains=lambda *_: True)
    nodes.is_timing, nodes.has_room_to_train = True, True
    tune.ask()
    assert tune.executor.reserve()
    tune.executor.submit(job)
    half = replace(job, kind=JobKind.TRAIN)
    assert tune.answer() == {"job": half, "place": "training place of job 1"}

    failed = RecipeFailed(job.recipes[1], "failed", "diverged")
    assert tune.events(half, "up", failed, JobEnded(0.0, 1.0), GONE) == [(job, "up"), (job, failed)]
    tune.ask()
    assert not tune.executor.reserve()
    assert tune.answer() == "nothing yet"

    nodes.is_timing = False
    assert not tune.executor.reserve()
    left = replace(job, recipes=job.recipes[:1])
    assert tune.answer() == {"job": left, "place": "place of job 1"}
    assert [type(event) for _, event in tune.events(left, GONE)] == [Waited, WorkerGone]
    assert nodes.jobs == []


def test_a_job_that_trains_nothing_waits_and_no_second_one_does(pool, nodes):
    """The agent decides better the later it decides. No more jobs are under way than there are workers."""
    nodes.is_timing, nodes.has_room_to_train = True, True
    tune = Tune(pool)
    tune.ask()
    assert tune.executor.reserve()
    tune.executor.submit(Job(1, JobKind.MEASURE, (Recipe(),), 0.0, "test"))
    assert tune.answer() == "nothing yet"
    assert not tune.executor.reserve()
    assert tune.executor.is_held_up
    nodes.is_timing = False
    assert not tune.executor.reserve()
    assert tune.answer()["place"] == "place of job 1"


def test_a_training_that_ends_everything_is_the_end_of_its_job(pool, nodes):
    """By its own failures, or because its worker died, or was lost with its node."""
    tune = Tune(pool, trains=lambda *_: True)
    dead, lost = WorkerGone("killed by SIGSEGV"), WorkerGone("the node of the worker is lost", is_blameless=True)
    for number, events, end in [(1, [RecipeFailed(Recipe(), "failed", "x"), GONE], GONE), (2, [dead], dead), (3, [], lost)]:
        job = Job(number, JobKind.MEASURE, (Recipe(),), 0.0, "test")
        nodes.has_room_to_train = True
        tune.ask()
        assert tune.executor.reserve()
        tune.executor.submit(job)
        assert tune.answer()["place"] == f"training place of job {number}"
        nodes.lost = ["job 3"] if number == 3 else []
        assert tune.events(job, *events)[-1] == (job, end)
    assert tune.executor._halves.waiting == 0
