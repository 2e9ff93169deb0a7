"""What the tests of Tune's executor share: a worker pool without Ray, and Tune's own part, done by the test."""

import contextlib
import queue
from types import SimpleNamespace

import pytest

from autocut.execution import ray_tune, worker_pool
from autocut.execution.executor import WorkerGone
from autocut.execution.ray_tune import TuneExecutor
from autocut.execution.worker_pool import WorkerPool
from autocut.measure.quiet import QuietLock


class Server:
    """A fork server that comes up, or ends, when the test says so."""

    address = "nowhere"

    def __init__(self):
        self.starts = 0
        self.failed_starts = 0
        self.is_running = self.is_idle = self.prepares_rest = False
        self.how_it_ended = None

    def start(self):
        """Begin to import."""
        self.starts += 1
        self.is_running, self.is_idle, self.how_it_ended = True, False, None

    def prepare_rest(self):
        """Import the rest."""
        self.prepares_rest, self.is_idle = True, False

    def end(self, early=False):
        """Be killed."""
        self.is_running, self.how_it_ended = False, "killed by SIGKILL"
        self.failed_starts += early


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A quiet lock of the test's own, which the pool shares."""
    monkeypatch.setattr(worker_pool, "QuietLock", lambda: QuietLock(tmp_path))
    return QuietLock(tmp_path)


@pytest.fixture
def server():
    """A fork server that has not been started."""
    return Server()


@pytest.fixture
def pool(lock, server, monkeypatch):
    """A worker pool whose fork server has just been started, and that has no Ray."""
    monkeypatch.setattr(worker_pool, "_server_process", lambda place, task_path: contextlib.nullcontext(server))
    monkeypatch.setattr(worker_pool, "_prepare_environment", lambda threads: None)
    with WorkerPool(None, threads=1, workers=2, ray_address=None) as entered:
        yield entered


class Tune:
    """An executor, and what Tune's thread does there, done by the test."""

    def __init__(self, pool, **options):
        self.lines = []
        self.executor = TuneExecutor(None, pool, self.lines.append, **options)
        self.channel = self.executor._channel

    def ask(self):
        """Want a job, as Tune does whenever a worker is free; `answer` has what comes of it."""
        self.channel.messages.put((None, ray_tune._ASKS))
        return self.events()

    def answer(self):
        """What the driver has answered: a trial, None, or "nothing yet"."""
        try:
            return self.channel.answers.get_nowait()
        except queue.Empty:
            return "nothing yet"

    def run(self, job):
        """Ask, and be given the job, if the machine can be held for it."""
        self.ask()
        if not self.executor.reserve():
            return False
        self.executor.submit(job)
        assert self.answer() == {"job": job}
        return True

    def events(self, job=None, *events):
        """Report events; return what the executor makes of all that has been reported."""
        for event in events:
            self.channel.send(job, event)
        return list(self.executor.events(0.001))


FIRST, SECOND = SimpleNamespace(number=1), SimpleNamespace(number=2)
GONE = WorkerGone(None)


def can_time(lock):
    """Whether a search could measure now."""
    try:
        with lock.exclusive(timeout_s=0.01):
            return True
    except worker_pool.DeadlineError:
        return False
