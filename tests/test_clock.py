"""A clock that keeps going when the time of day is set."""

import pickle
import time

import pytest

from autocut import clock
from autocut.clock import SteadyClock


def test_a_clock_set_back_moves_no_deadline(monkeypatch):
    """Neither an hour back nor a year ahead."""
    steady = SteadyClock.start()
    begun = steady()
    monkeypatch.setattr(time, "time", lambda: 5.0)

    assert 0 <= steady() - begun < 60


def test_processes_of_a_host_share_it(monkeypatch):
    """A reading of the driver's means the same moment to a worker, whose own time of day is another one."""
    steady = SteadyClock.start()
    sent = pickle.loads(pickle.dumps(steady))
    monkeypatch.setattr(time, "time", lambda: 5.0)

    assert sent() == pytest.approx(steady(), abs=60)


def test_another_machine_reads_its_own_time_of_day(monkeypatch):
    """It was started at another moment."""
    steady = SteadyClock.start()
    monkeypatch.setattr(clock, "_host", lambda: "another one")
    monkeypatch.setattr(time, "time", lambda: 5.0)

    assert steady() == 5.0
