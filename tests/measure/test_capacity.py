"""What the whole machine serves: the layouts that are tried, their copies, and the throughput of all of them together."""

import mmap
import os
import re
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autocut.measure import capacity
from autocut.measure.capacity import Copies, CopyFailedError, measure_layouts, rate_of, shapes_for
from autocut.measurement import Interval, Layout


@given(processors=st.integers(1, 256), threads=st.none() | st.integers(1, 8))
def test_layouts_fill_the_machine_and_never_more(processors, threads):
    """One process is there to compare with; all others leave fewer processors free than one more copy would need."""
    shapes = shapes_for(processors, threads)

    assert shapes[0] == (1, threads or 1)
    assert (max(1, processors // (threads or 1)), threads or 1) in shapes
    for copies, each in shapes:
        assert each == threads or threads is None
        assert copies == 1 or copies * each <= processors
    if threads is None:
        assert {processors // copies for copies, _ in shapes[1:]} == {each for _, each in shapes[1:]}


def test_the_layouts_of_a_machine_with_eight_processors():
    """Copies go up in powers of two. Code that was compiled for two threads runs with two."""
    assert shapes_for(8) == ((1, 1), (1, 8), (2, 4), (4, 2), (8, 1))
    assert shapes_for(8, 2) == ((1, 2), (2, 2), (4, 2))
    assert shapes_for(6) == ((1, 1), (1, 6), (2, 3), (4, 1), (6, 1))


@given(
    calls_ns=st.lists(st.integers(10**6, 10**8), min_size=1, max_size=8),
    seconds=st.floats(0.5, 3.0),
    first_ns=st.integers(0, 10**6),
)
def test_steady_copies_add_up(calls_ns, seconds, first_ns):
    """A copy whose call takes d seconds serves 1 / d calls a second, wherever the seconds that count begin and end."""
    began, ended = 10**9 + first_ns, 10**9 + first_ns + int(seconds * 1e9)
    returned = [np.arange(began, ended + 2 * call, call, dtype=np.int64) for call in calls_ns]

    found = rate_of(returned, began, ended)

    assert found.value == pytest.approx(sum(1e9 / call for call in calls_ns), rel=1e-6)
    assert found.low < found.value < found.high


def test_an_uneven_machine_has_a_wide_interval():
    """A copy that is twice as fast in half of the seconds: the interval reaches far beyond that of a steady one."""
    began, ended = 0, 10**9
    steady = np.arange(0, ended + 2 * 10**7, 10**7)
    uneven = np.concatenate([np.arange(0, 5 * 10**8, 10**7), np.arange(5 * 10**8, ended + 10**7, 5 * 10**6)])

    assert width(rate_of([uneven], began, ended)) > 3 * width(rate_of([steady], began, ended))


def width(interval):
    """Relative width."""
    return (interval.high - interval.low) / interval.value


def test_each_copy_is_a_process_with_its_threads(tmp_path):
    """Two copies of two threads are two processes, neither of them this one, and they call the model meanwhile."""

    def load(threads):
        def call():
            (tmp_path / f"{os.getpid()}-{threads}-{torch.get_num_threads()}").touch()

        return call

    with Copies(load, 2, 2) as copies:
        ran = copies.run(0.05)

    found = [path.name.split("-") for path in tmp_path.iterdir()]
    assert len({pid for pid, *_ in found} - {str(os.getpid())}) == 2
    assert {tuple(threads) for _, *threads in found} == {("2", "2")}
    assert ran.calls_per_s.value > 0
    assert ran.cpu_share > 0


def fail():
    """Raise what a runtime could raise."""
    raise ValueError("no kernel\nfor this")


@pytest.mark.parametrize(
    ("call", "told"),
    [(fail, "ValueError: no kernel$"), (lambda: os._exit(7), "died, exit code 7"), (lambda: time.sleep(60), "no answer in time")],
)
def test_a_copy_that_does_not_answer_ends_its_layout_alone(call, told):
    """A reason comes back, whether it raises, dies or hangs; and no process is left."""
    with pytest.raises(CopyFailedError, match=told), Copies(lambda _: call, 1, 1, time.monotonic() + 2):
        pass


def test_layouts_are_measured_beside_the_yardstick(monkeypatch):
    """Predictions are calls times the batch size; a layout that does not fit into the memory is left out, and why is told."""
    monkeypatch.setattr(capacity, "_SHORTEST_S", 0.1)
    monkeypatch.setattr(capacity.MachineMemory, "available_bytes", lambda self: 100 * 2**20)

    def load(threads):
        # Pages of its own: an earlier test of this process may have made malloc keep what was freed, and a copy would grow by less.
        kept = np.frombuffer(mmap.mmap(-1, 50 * 2**20), np.uint8)
        kept[:] = 1
        return lambda: time.sleep(0.01 * kept[0])

    layouts, left_out = measure_layouts(load, 32, ((1, 1), (2, 1)), 2, 60)

    (one,) = layouts
    assert (one.copies, one.threads) == (1, 1)
    assert one.per_s.value <= 32 / 0.01
    assert one.yardstick_per_s > 0
    assert re.fullmatch(r"2 copies x 1 thread: 2 x 0\.\d GiB do not fit into the free memory", *left_out)


def test_no_layout_is_begun_when_the_time_is_up():
    """The second one would end too late, by what the first one took. What is left out is told."""

    def load(threads):
        time.sleep(1.6)
        return lambda: time.sleep(0.01)

    _, left_out = measure_layouts(load, 1, ((1, 1), (1, 2)), 1, 3)

    assert left_out[-1] == "1 copy x 2 threads: no time was left"


def test_a_disturbed_layout_runs_once_more_and_the_calmer_run_counts(monkeypatch):
    """Other programs took a processor from the first run of one layout, and half of one from both runs of another."""
    loads = {(1, 1): iter([1.0, 0.1]), (2, 1): iter([0.9, 0.7]), (1, 2): iter([0.0])}
    runs = []

    def run(self, copies, threads):
        runs.append((copies, threads))
        return Layout(copies, threads, Interval(1.0, 1.0, 1.0), 1.0, next(loads[copies, threads]))

    monkeypatch.setattr(capacity._LayoutRunner, "run", run)
    layouts, left_out = measure_layouts(lambda _: time.sleep, 1, ((1, 1), (1, 2), (2, 1)), 1, 60)

    assert runs == [(1, 1), (2, 1), (1, 2), (1, 1), (2, 1)]
    assert [layout.load for layout in layouts] == [0.1, 0.0, 0.7]
    assert left_out == ()
