"""The watchdog: what hangs is killed, what waits is not."""

import contextlib

import pytest

from autocut.errors import DeadlineError
from autocut.execution import watchdog as module
from autocut.execution.watchdog import Watchdog
from autocut.measure.quiet import QuietLock
from autocut.pipeline.stage_cache import StageCache


class FakeClock:
    """A clock that moves by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        """Return the reading."""
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Replaces `time.time`."""
    clock = FakeClock()
    monkeypatch.setattr(module.time, "time", clock)
    return clock


@pytest.fixture
def armed(monkeypatch):
    """The seconds after which the process would be killed, one for each time that the watchdog was set; None: it was ended."""
    seconds = []
    monkeypatch.setattr(module.faulthandler, "dump_traceback_later", lambda after, **_: seconds.append(after))
    monkeypatch.setattr(module.faulthandler, "cancel_dump_traceback_later", lambda: seconds.append(None))
    return seconds


def test_work_may_take_what_it_is_allowed_but_never_more_than_the_deadline(clock, armed):
    """A recipe has its patience, a job its deadline: the earlier one kills."""
    dog = Watchdog(clock.now + 100)
    dog.allow(30)
    clock.now += 20
    dog.allow(500)
    dog.end()
    assert armed == [100, 30, 80, None]


def test_waiting_is_not_hanging(clock, armed):
    """Behind a long verification a recipe of three seconds has its whole patience left; the deadline does not move."""
    dog = Watchdog(clock.now + 1000)
    dog.allow(30)
    clock.now += 10
    with dog.paused():
        assert armed[-1] == 990
        with dog.paused():  # a wait inside a wait
            clock.now += 600
    assert armed[-1] == 20
    clock.now += 15
    with dog.paused():
        pass
    assert armed[-1] == 5


def test_only_real_waiting_stops_the_clock(tmp_path):
    """A lock that is free costs nothing: trainings take it at every batch."""
    paused = []

    def waiting():
        paused.append(1)
        return contextlib.nullcontext()

    lock, other = QuietLock(tmp_path / "locks", waiting), QuietLock(tmp_path / "locks")
    cache = StageCache(tmp_path / "stages", waiting=waiting)
    with lock.shared(), other.shared():
        cache.get_or_make("a" * 64, "stage", "method", lambda folder: None)
    with lock.exclusive():
        pass
    assert not paused
    with other.shared(), pytest.raises(DeadlineError), lock.exclusive(stop=lambda: bool(paused)):
        pass
    assert paused
