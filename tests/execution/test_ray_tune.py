"""The driver's side of the processes that jobs run in: the fork server's keeper, and the desk that hands out jobs."""

import contextlib
import inspect
import itertools
import threading
from types import SimpleNamespace

import pytest

from autocut.errors import InputError
from autocut.execution import worker_pool
from autocut.execution.ray_tune import _Desk, _scheduler
from autocut.execution.worker_pool import Workplace
from autocut.measure.quiet import QuietLock


class Server:
    """A fork server that comes up, or ends, when told to."""

    address = "nowhere"

    def __init__(self):
        self.starts = 0
        self.failed_starts = 0
        self.is_running = self.is_idle = self.goes_on = False
        self.how_it_ended = None

    def start(self):
        """Begin to import."""
        self.starts += 1
        self.is_running, self.is_idle, self.how_it_ended = True, False, None

    def go_on(self):
        """Import the rest."""
        self.goes_on, self.is_idle = True, False

    def end(self, early=False):
        """Be killed."""
        self.is_running, self.how_it_ended = False, "killed by SIGKILL"
        self.failed_starts += early


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A quiet lock of the test's own, which the workplace shares."""
    monkeypatch.setattr(worker_pool, "QuietLock", lambda: QuietLock(tmp_path))
    return QuietLock(tmp_path)


@pytest.fixture
def server():
    """A fork server that has not been started."""
    return Server()


@pytest.fixture
def place(lock, server, monkeypatch):
    """A workplace whose fork server has just been started, and that has no Ray."""
    monkeypatch.setattr(worker_pool, "_fork_server", lambda task_path: contextlib.nullcontext(server))
    monkeypatch.setattr(worker_pool, "_prepare_environment", lambda threads: None)
    with Workplace(None, threads=1, workers=2, ray_address=None) as entered:
        yield entered


def make_desk(place, jobs=("first",)):
    """A desk with room for two jobs, and an agent with one."""
    jobs = iter(jobs)
    progress = SimpleNamespace(lines=[])
    agent = SimpleNamespace(
        fault=None,
        budget=SimpleNamespace(clock=lambda: 0.0, deadline=60.0),
        next_job=lambda: next(jobs, None),
        on_job_end=lambda job, error: None,
        progress=progress,
    )
    return _Desk(agent, lambda: None, place)


def can_time(lock):
    """Whether somebody could measure now."""
    try:
        with lock.exclusive(timeout_s=0.01):
            return True
    except worker_pool.DeadlineError:
        return False


def test_nobody_times_while_the_fork_server_imports(place, server, lock):
    """It keeps a core busy for seconds, twice; in between it does nothing, and holds nobody up."""
    desk = make_desk(place)
    assert not can_time(lock)

    server.is_idle = True
    desk.tick()
    assert can_time(lock)

    assert desk.take_job("1") == "first"
    desk.deliver("1", None)
    desk.tick()
    assert server.goes_on
    assert not can_time(lock)

    server.is_idle = True
    desk.tick()
    assert can_time(lock)


def test_whoever_wants_to_time_while_a_search_starts_gets_to(place, server, lock):
    """It waits for the hold of the start, and lets nobody take another: the hold must end without one."""
    desk, timed = make_desk(place, itertools.repeat("job")), threading.Event()

    def time_something():
        with lock.exclusive():
            timed.set()

    timing = threading.Thread(target=time_something, daemon=True)
    timing.start()
    while desk.take_job("1") is not None:  # until it waits
        desk.end("1", None)
    server.is_idle = True
    desk.tick()
    assert timed.wait(10)
    timing.join()

    assert desk.take_job("2") == "job"


def test_tune_keeps_the_process_of_every_worker():
    """Two that are idle at once, as between two phases, are both there for the next jobs."""
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.utils.object_cache import _ObjectCache

    cache, scheduler = _ObjectCache(may_keep_one=True), _scheduler(workers=2)
    trial = SimpleNamespace(placement_group_factory="a core")
    for _ in range(3):
        scheduler.on_trial_add(SimpleNamespace(_actor_cache=cache), trial)
    kept = [cache.cache_object("a core", process) for process in ("first", "second", "third")]

    assert kept == [True, True, False]
    assert not list(cache.flush_cached_objects())
    assert "_actor_cache" in inspect.getsource(TuneController.__init__)


def test_a_workplace_without_a_fork_server_holds_the_machine_until_it_is_open(lock, monkeypatch):
    """The task is looked at meanwhile."""
    monkeypatch.setattr(worker_pool, "is_supported", lambda: False)
    monkeypatch.setattr(worker_pool, "_prepare_environment", lambda threads: None)
    with Workplace(None, threads=1, workers=1, ray_address=None) as place:
        assert place.ask is None
        assert not can_time(lock)
        place.open()
        assert can_time(lock)


def test_leaving_a_workplace_lets_go_of_the_machine(lock, server, monkeypatch):
    """However early."""
    monkeypatch.setattr(worker_pool, "_fork_server", lambda task_path: contextlib.nullcontext(server))
    monkeypatch.setattr(worker_pool, "_prepare_environment", lambda threads: None)
    with pytest.raises(KeyboardInterrupt), Workplace(None, threads=1, workers=1, ray_address=None):
        raise KeyboardInterrupt
    assert can_time(lock)


def test_the_fork_server_does_not_start_again_while_somebody_times(place, server, lock):
    """The next tick tries again."""
    server.is_idle = True
    place.forks.keep()
    server.end()
    with lock.exclusive():
        assert place.forks.keep() is None
    assert server.starts == 1

    assert "killed by SIGKILL: starting it again" in place.forks.keep()
    assert server.starts == 2


def test_a_fork_server_that_never_comes_up_ends_the_search(place, server, lock):
    """With the reason, and without keeping others from measuring."""
    server.end(early=True)
    for _ in range(2):
        place.forks.keep()
        server.end(early=True)

    with pytest.raises(InputError, match="killed by SIGKILL"):
        place.forks.keep()
    assert can_time(lock)


def test_a_second_process_starts_while_the_first_job_runs_alone(place, server, lock):
    """Once; it holds the machine until it is there, and the agent never hears of it."""
    desk = make_desk(place)
    assert not desk.warms_up("0")
    assert desk.take_job("1") == "first"
    desk.deliver("1", None)
    server.is_idle = True
    desk.tick()
    assert desk.take_job("2") is None
    assert desk.warms_up("2")
    assert not can_time(lock)

    desk.end("2", None)
    assert can_time(lock)
    assert desk.take_job("3") is None
    assert not desk.warms_up("3")


@pytest.mark.parametrize(("has_forks", "workers"), [(False, 2), (True, 1)])
def test_a_process_that_would_be_of_no_use_is_not_started_early(place, has_forks, workers):
    """One that runs jobs itself cannot be kept for the next one, and a single worker has no second."""
    place.workers = workers
    if not has_forks:
        place.forks = None
    desk = make_desk(place)
    desk.take_job("1")
    desk.deliver("1", None)

    assert desk.take_job("2") is None
    assert not desk.warms_up("2")


def test_where_a_fork_gives_no_answer_another_process_is_asked(tmp_path, monkeypatch):
    """A search must not end because the process that checks its task died."""

    def die(*arguments, timeout_s):
        raise worker_pool.WorkerDiedError("gone")

    monkeypatch.setattr(worker_pool, "run_in_fork", die)
    monkeypatch.setattr("autocut.task.model_check.ask_fresh_process", lambda folder, path: {"fingerprint": f"{folder} {path}"})

    assert worker_pool._ask_fork("nowhere", tmp_path, None) == {"fingerprint": f"{tmp_path} None"}
