"""The driver's side of the processes that jobs run in: the worker pool, and the executor that Tune asks for jobs.

Where the jobs run on the nodes of a cluster: `test_ray_tune_nodes`.
"""

import contextlib
import inspect
import signal
import threading
from types import SimpleNamespace

import pytest
from ray.tune.execution import class_cache

from autocut.errors import InputError
from autocut.execution import ray_tune, worker_pool
from autocut.execution.executor import WorkerGone
from autocut.execution.fork_client import DIED
from autocut.execution.ray_tune import TuneExecutor, _JobSearcher, _KeepingScheduler
from autocut.execution.worker_pool import WorkerPool
from tests.execution.conftest import FIRST, GONE, SECOND, Tune, can_time


def test_sigterm_is_the_drivers_own_after_ray_has_started():
    """Ray's handler would print a dump, and end the process before the search has closed its study."""
    before = signal.getsignal(signal.SIGTERM)
    with worker_pool._keeping_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    assert signal.getsignal(signal.SIGTERM) == before


def test_tune_asks_for_no_other_processes_than_those_that_wait(monkeypatch):
    """Ray starts new ones for variables that its own processes lack, which takes seconds."""
    monkeypatch.setattr(class_cache, "DEFAULT_ENV_VARS", {"PL_DISABLE_FORK": "1", "ANOTHER": "1"})
    monkeypatch.setattr("os.environ", dict(worker_pool._ENVIRONMENT))
    worker_pool.use_waiting_processes()

    assert class_cache.DEFAULT_ENV_VARS == {"ANOTHER": "1"}


def test_a_worker_that_may_not_start_is_held_up(pool, lock, monkeypatch):
    """The ledger counts it as waiting; one that is free without a job is not."""
    tune = Tune(pool)
    assert not tune.executor.reserve()
    assert not tune.executor.is_held_up
    tune.ask()
    with monkeypatch.context() as held:
        held.setattr(pool.holds, "take", lambda name: False)
        assert not tune.executor.reserve()
        assert tune.executor.is_held_up
    assert tune.executor.reserve()
    assert not tune.executor.is_held_up


def test_nothing_is_timed_while_the_fork_server_imports(pool, server, lock):
    """It keeps a core busy for seconds, twice; in between it does nothing, and holds up no search."""
    tune = Tune(pool)
    assert not can_time(lock)

    server.is_idle = True
    tune.events()
    assert can_time(lock)

    assert tune.run(FIRST)
    assert not can_time(lock)
    assert tune.events(FIRST, "up") == [(FIRST, "up")]
    tune.events()
    assert server.prepares_rest
    assert not can_time(lock)

    server.is_idle = True
    tune.events()
    assert can_time(lock)


def test_a_search_that_wants_to_time_while_another_starts_gets_to(pool, server, lock):
    """It waits for the hold of the start, and no other hold is given out: the hold must end without one."""
    tune, timed = Tune(pool), threading.Event()

    def time_something():
        with lock.exclusive():
            timed.set()

    timing = threading.Thread(target=time_something, daemon=True)
    timing.start()
    while tune.run(FIRST):  # until it waits
        tune.events(FIRST, GONE)
    server.is_idle = True
    tune.events()
    assert timed.wait(10)
    timing.join()

    assert tune.executor.reserve()


def test_jobs_and_events_go_between_tune_and_the_driver(pool):
    """A result without an event, as the last one of a trial, is none. A relay that dies is no fault of its job."""
    tune = Tune(pool)
    searcher = _JobSearcher(tune.channel, relays=True)
    for job in (FIRST, SECOND):
        tune.channel.answers.put({"job": job})
    assert searcher.suggest("a") == {"job": FIRST}
    assert searcher.suggest("b") == {"job": SECOND}
    searcher.on_trial_result("a", {"event": "up"})
    searcher.on_trial_result("b", {"event": "up"})
    searcher.on_trial_result("a", {"done": True})
    searcher.on_trial_complete("a", {"event": "up"})
    searcher.on_trial_complete("b", None, error=True)

    found = [event for _ in range(3) for event in tune.events()]
    assert found == [(FIRST, "up"), (SECOND, "up"), (FIRST, GONE), (SECOND, WorkerGone(DIED, is_blameless=True))]


def test_how_a_worker_died_reaches_the_driver(pool):
    """Its relay says it before Tune's trial ends; Tune itself would pass on that there was an error, and no more."""
    tune = Tune(pool)
    searcher = _JobSearcher(tune.channel, relays=True)
    tune.channel.answers.put({"job": FIRST})
    searcher.suggest("a")
    tune.events()
    searcher.on_trial_result("a", {"died": ("it crashed", False)})
    searcher.on_trial_complete("a", {"died": ("it crashed", False)})

    assert tune.events() == [(FIRST, WorkerGone("it crashed"))]


def test_tune_waits_for_a_job_where_nothing_runs(pool, server, lock):
    """It would look again after a second only; while something runs, the answer is at once that there is no job."""
    tune = Tune(pool)
    server.is_idle = True
    tune.ask()
    assert tune.executor.reserve()
    tune.executor.leave_free()
    assert tune.answer() == "nothing yet"
    with lock.exclusive():
        assert not tune.executor.reserve()
    assert tune.executor.reserve()
    tune.executor.submit(FIRST)
    assert tune.answer() == {"job": FIRST}
    assert not tune.executor.reserve()

    tune.events(FIRST, "up")
    server.is_idle = True
    tune.ask()
    with lock.exclusive():
        assert not tune.executor.reserve()
    assert tune.answer() is None


def test_a_fault_of_tune_reaches_the_driver(pool, monkeypatch):
    """As the exception that it is."""
    monkeypatch.setattr(ray_tune, "_tuner", lambda *_: SimpleNamespace(fit=lambda: 1 / 0))
    executor = TuneExecutor(None, pool, print)
    executor.start()
    with pytest.raises(ZeroDivisionError):
        list(executor.events(10))
    executor.stop()


def test_a_fit_that_ends_by_itself_is_a_fault(pool, monkeypatch):
    """Jobs would wait for ever."""
    monkeypatch.setattr(ray_tune, "_tuner", lambda *_: SimpleNamespace(fit=lambda: None))
    executor = TuneExecutor(None, pool, print)
    executor.start()
    with pytest.raises(RuntimeError, match="ended by itself"):
        list(executor.events(10))
    executor.stop()


@pytest.mark.parametrize("asks", [True, False])
def test_the_thread_of_tune_leaves_when_the_executor_stops(pool, monkeypatch, asks):
    """Whether it waits for a job or for a worker; what it has sent before does not matter."""

    def fit():
        while True:
            channel.ask() if asks else channel.send(FIRST, "up")

    monkeypatch.setattr(ray_tune, "_tuner", lambda *_: SimpleNamespace(fit=fit))
    executor = TuneExecutor(None, pool, print)
    channel = executor._channel
    executor.start()
    next(iter(executor.events(1)), None)
    executor.stop()

    assert not executor._thread.is_alive()


def test_tune_keeps_the_process_of_every_worker():
    """Two that are idle at once, as between two phases, are both there for the next jobs."""
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.utils.object_cache import _ObjectCache

    cache, scheduler = _ObjectCache(may_keep_one=True), _KeepingScheduler(None, workers=2)
    trial = SimpleNamespace(placement_group_factory="a core")
    for _ in range(3):
        scheduler.on_trial_add(SimpleNamespace(_actor_cache=cache), trial)
    kept = [cache.cache_object("a core", process) for process in ("first", "second", "third")]

    assert kept == [True, True, False]
    assert not list(cache.flush_cached_objects())
    assert "_actor_cache" in inspect.getsource(TuneController.__init__)


def test_a_pool_without_a_fork_server_holds_the_machine_until_it_is_open(lock, monkeypatch):
    """The task is looked at meanwhile."""
    monkeypatch.setattr(worker_pool, "is_supported", lambda: False)
    monkeypatch.setattr(worker_pool, "_prepare_environment", lambda threads: None)
    with WorkerPool(None, threads=1, workers=1, ray_address=None) as pool:
        assert pool.ask is None
        assert not can_time(lock)
        pool.open()
        assert can_time(lock)


def test_leaving_a_pool_lets_go_of_the_machine(lock, server, monkeypatch):
    """However early."""
    monkeypatch.setattr(worker_pool, "_server_process", lambda place, task_path: contextlib.nullcontext(server))
    monkeypatch.setattr(worker_pool, "_prepare_environment", lambda threads: None)
    with pytest.raises(KeyboardInterrupt), WorkerPool(None, threads=1, workers=1, ray_address=None):
        raise KeyboardInterrupt
    assert can_time(lock)


def test_the_fork_server_does_not_start_again_while_a_search_times(pool, server, lock):
    """The next tick tries again."""
    server.is_idle = True
    pool.look_after()
    server.end()
    with lock.exclusive():
        assert pool.look_after() is None
    assert server.starts == 1

    assert "killed by SIGKILL: starting it again" in pool.look_after()
    assert server.starts == 2


def test_a_fork_server_that_never_comes_up_ends_the_search(pool, server, lock):
    """With the reason, and without keeping others from measuring."""
    server.end(early=True)
    for _ in range(2):
        pool.look_after()
        server.end(early=True)

    with pytest.raises(InputError, match="killed by SIGKILL"):
        pool.look_after()
    assert can_time(lock)


def test_a_second_process_starts_while_the_first_job_runs_alone(pool, server, lock):
    """Once; it holds the machine until it is there, and the agent never hears of it."""
    tune = Tune(pool)
    assert tune.run(FIRST)
    tune.events(FIRST, "up")
    server.is_idle = True
    tune.ask()
    assert tune.executor.reserve()
    tune.executor.leave_free()
    assert tune.answer() == {"job": None}
    assert not can_time(lock)

    assert tune.events(None, GONE) == []
    assert can_time(lock)
    tune.ask()
    assert tune.executor.reserve()
    tune.executor.leave_free()
    assert tune.answer() is None
    assert can_time(lock)


def test_the_fork_server_prepares_the_rest_when_a_job_reports_and_not_when_a_process_without_one_ends(pool, server):
    """The first job may still be loading, which late imports would slow down."""
    tune = Tune(pool)
    tune.run(FIRST)
    tune.ask()
    tune.executor.reserve()
    tune.executor.leave_free()

    tune.events(None, GONE)
    assert not server.prepares_rest
    tune.events(FIRST, "up")
    assert server.prepares_rest


@pytest.mark.parametrize(("has_fork_server", "workers"), [(False, 2), (True, 1)])
def test_a_process_that_would_be_of_no_use_is_not_started_early(pool, has_fork_server, workers):
    """One that runs jobs itself cannot be kept for the next one, and a single worker has no second."""
    pool.workers = workers
    if not has_fork_server:
        pool.fork_server = None
    tune = Tune(pool)
    assert tune.run(FIRST)
    tune.events(FIRST, "up")
    tune.ask()
    assert tune.executor.reserve()
    tune.executor.leave_free()

    assert tune.answer() is None


def test_where_a_fork_gives_no_answer_another_process_is_asked(tmp_path, monkeypatch):
    """A search must not end because the process that checks its task died."""

    def die(*arguments, timeout_s):
        raise worker_pool.WorkerDiedError("gone")

    monkeypatch.setattr(worker_pool, "run_in_fork", die)
    monkeypatch.setattr("autocut.task.model_check.ask_fresh_process", lambda folder, path: {"fingerprint": f"{folder} {path}"})

    assert worker_pool._ask_fork("nowhere", tmp_path, None) == {"fingerprint": f"{tmp_path} None"}
