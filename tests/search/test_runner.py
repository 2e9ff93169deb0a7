"""The driver's side of the processes that jobs run in: the fork server's keeper, and the desk that hands out jobs."""

from types import SimpleNamespace

import pytest

from autocut.errors import InputError
from autocut.measure.quiet import QuietLock
from autocut.search import workplace
from autocut.search.runner import _Desk
from autocut.search.workplace import Forks, Starts


class Server:
    """A fork server that comes up, or ends, when told to."""

    def __init__(self):
        self.starts = 0
        self.failed_starts = 0
        self.is_running = self.is_ready = self.goes_on = False
        self.how_it_ended = None

    def start(self):
        """Begin to import."""
        self.starts += 1
        self.is_running, self.is_ready, self.how_it_ended = True, False, None

    def go_on(self):
        """Import the rest."""
        self.goes_on = True

    def end(self, early=False):
        """Be killed."""
        self.is_running, self.how_it_ended = False, "killed by SIGKILL"
        self.failed_starts += early


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A quiet lock of the test's own, which the workplace shares."""
    monkeypatch.setattr(workplace, "QuietLock", lambda: QuietLock(tmp_path))
    return QuietLock(tmp_path)


@pytest.fixture
def starts(lock):
    """Who holds the machine while it starts."""
    return Starts()


@pytest.fixture
def server():
    """A fork server that has not been started."""
    return Server()


@pytest.fixture
def forks(server, starts):
    """Its keeper."""
    return Forks(server, starts)


@pytest.fixture
def desk(forks, starts):
    """A desk with room for two jobs, and an agent with one."""
    jobs = iter(["first"])
    agent = SimpleNamespace(
        fault=None,
        budget=SimpleNamespace(clock=lambda: 0.0, deadline=60.0),
        next_job=lambda: next(jobs, None),
        on_job_end=lambda job, error: None,
    )
    return _Desk(agent, lambda: None, SimpleNamespace(forks=forks, starts=starts, workers=2))


def can_time(lock):
    """Whether somebody could measure now."""
    try:
        with lock.exclusive(timeout_s=0.01):
            return True
    except workplace.DeadlineError:
        return False


def test_nobody_times_while_the_fork_server_imports(forks, server, lock):
    """Its imports keep a core busy for seconds."""
    forks.begin()
    assert not can_time(lock)

    server.is_ready = True
    assert forks.keep() is None
    assert can_time(lock)


def test_the_fork_server_does_not_start_again_while_somebody_times(forks, server, lock):
    """The next tick tries again."""
    forks.begin()
    server.end()
    forks._starts.release_all()
    with lock.exclusive():
        assert forks.keep() is None
    assert server.starts == 1

    assert "killed by SIGKILL: starting it again" in forks.keep()
    assert server.starts == 2


def test_a_fork_server_that_never_comes_up_ends_the_search(forks, server, lock):
    """With the reason, and without keeping others from measuring."""
    forks.begin()
    server.end(early=True)
    for _ in range(2):
        forks.keep()
        server.end(early=True)

    with pytest.raises(InputError, match="killed by SIGKILL"):
        forks.keep()
    assert can_time(lock)


def test_a_second_process_starts_while_the_first_job_runs_alone(desk, server, lock):
    """Once; it holds the machine until it is there, and the agent never hears of it."""
    assert desk.take_job("1") == "first"
    assert not server.goes_on
    desk.deliver("1", None)
    assert server.goes_on
    assert desk.take_job("2") is None
    assert desk.warms_up("2")
    assert not can_time(lock)

    desk.end("2", None)
    assert can_time(lock)
    assert desk.take_job("3") is None
    assert not desk.warms_up("3")


def test_a_process_that_would_run_the_job_itself_is_not_started_early(desk):
    """A job needs a fresh one there."""
    desk._may_warm_up = False
    desk.take_job("1")
    assert not desk.warms_up("2")
