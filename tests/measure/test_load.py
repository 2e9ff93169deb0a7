"""The load meter reads planted counters of a kernel."""

import os

import pytest

from autocut.measure import load as module
from autocut.measure.load import LoadMeter


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A machine of four processors whose counters the test sets; this process works as many seconds as `own` says."""
    stat, own = tmp_path / "stat", {"s": 0.0}
    monkeypatch.setattr(module.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(module.os, "times", lambda: (own["s"], 0.0, 0.0, 0.0, 0.0))

    def count(passed_s, worked_s, own_s):
        ticks = os.sysconf("SC_CLK_TCK")
        stat.write_text(f"cpu {int(worked_s * ticks)} 0 0 {int((passed_s - worked_s) * ticks)} 0 0 0 0 0 0\ncpu0 1 2 3\n")
        own["s"] = own_s
        return stat

    return count


def test_work_of_others_is_counted_in_processors(kernel):
    """Ten seconds on four processors: 25 s of work, of which this process did 10 s."""
    meter = LoadMeter(kernel(400.0, 100.0, 5.0))
    kernel(440.0, 125.0, 15.0)
    assert meter.read() == pytest.approx(1.5)


def test_work_of_this_process_alone_is_no_load(kernel):
    """The kernel counts in ticks, so the difference may fall below zero: that is none."""
    meter = LoadMeter(kernel(400.0, 100.0, 0.0))
    kernel(440.0, 109.9, 10.0)
    assert meter.read() == 0.0


def test_too_short_a_time_tells_nothing(kernel):
    """A few ticks may be all of one program or of another."""
    meter = LoadMeter(kernel(400.0, 100.0, 0.0))
    kernel(400.05, 100.05, 0.0)
    assert meter.read() is None


def test_a_system_without_these_counters_tells_nothing(tmp_path):
    """Then a record says that the load is not known."""
    assert LoadMeter(tmp_path / "missing").read() is None
