"""The driver's desk: looks after the process that workers are forked from."""

from types import SimpleNamespace

import pytest

from autocut.errors import InputError
from autocut.measure.quiet import QuietLock
from autocut.search import runner
from autocut.search.runner import _Desk


class Forks:
    """A fork server that comes up, or ends, when told to."""

    def __init__(self):
        self.starts = 0
        self.failed_starts = 0
        self.is_running = self.is_ready = False
        self.how_it_ended = None

    def start(self):
        """Begin to import."""
        self.starts += 1
        self.is_running, self.is_ready, self.how_it_ended = True, False, None

    def end(self, early=False):
        """Be killed."""
        self.is_running, self.how_it_ended = False, "killed by SIGKILL"
        self.failed_starts += early


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A quiet lock of the test's own, which the desk shares."""
    monkeypatch.setattr(runner, "QuietLock", lambda: QuietLock(tmp_path))
    return QuietLock(tmp_path)


@pytest.fixture
def desk(lock):
    """A desk with a fork server and no agent to speak of."""
    return _Desk(SimpleNamespace(progress=SimpleNamespace(lines=[])), lambda: None, Forks())


def can_time(lock):
    """Whether somebody could measure now."""
    try:
        with lock.exclusive(timeout_s=0.01):
            return True
    except runner.DeadlineError:
        return False


def test_nobody_times_while_the_fork_server_imports(desk, lock):
    """Its imports keep a core busy for seconds."""
    desk.keep_forks()
    assert not can_time(lock)

    desk.forks.is_ready = True
    desk.keep_forks()
    assert can_time(lock)


def test_the_fork_server_does_not_start_while_somebody_times(desk, lock):
    """The next tick tries again."""
    with lock.exclusive():
        desk.keep_forks()
    assert desk.forks.starts == 0

    desk.keep_forks()
    assert desk.forks.starts == 1


def test_a_fork_server_that_dies_is_told_and_started_again(desk):
    """Its jobs died with it; the next ones need another."""
    desk.keep_forks()
    desk.forks.is_ready = True
    desk.forks.end()
    desk.keep_forks()

    assert desk.forks.starts == 2
    assert "killed by SIGKILL: starting it again" in desk._agent.progress.lines[0]


def test_a_fork_server_that_never_comes_up_ends_the_search(desk, lock):
    """With the reason, and without keeping others from measuring."""
    for _ in range(2):
        desk.keep_forks()
        desk.forks.end(early=True)
    desk.keep_forks()
    desk.forks.end(early=True)

    with pytest.raises(InputError, match="killed by SIGKILL"):
        desk.keep_forks()
    assert can_time(lock)
