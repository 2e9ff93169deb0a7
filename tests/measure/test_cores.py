"""Lending cores between workers, with real processes. The folders are of the test, the processors are this machine's."""

import contextlib
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

from autocut.measure import cores

PREAMBLE = "import sys, time; from pathlib import Path; from autocut.measure import cores; folder = Path(sys.argv[1])\n"

OWN = """
    with cores.owned({count}, folder=folder) as have:
        print(have, flush=True)
        sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Every test begins with one thread of torch, and leaves torch's number as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def three_processors(monkeypatch):
    """This process sees three processors, whatever the machine has."""
    monkeypatch.setattr(cores, "_processors", lambda: range(3))


@pytest.fixture
def start(tmp_path):
    """Run Python in another process with `cores` and `folder` at hand."""
    with contextlib.ExitStack() as ends:

        def begin(code):
            script = PREAMBLE + "cores._processors = lambda: range(3)\n" + textwrap.dedent(code)
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            ends.callback(process.stdout.close)
            ends.callback(process.stdin.close)
            ends.callback(process.wait)
            ends.callback(process.kill)
            return process

        yield begin


def test_work_gets_every_core_that_no_worker_owns(start, tmp_path):
    """A worker that owns a core keeps it; the others are lent, and torch's number of threads is restored."""
    assert start(OWN.format(count=1)).stdout.readline() == "1\n"
    with cores.owned(folder=tmp_path), contextlib.closing(cores.Loan(tmp_path)) as loan:
        assert loan.renew() == 2 == torch.get_num_threads()
    assert torch.get_num_threads() == 1


def test_a_limit_bounds_the_threads(tmp_path):
    """Work that cannot use more threads leaves the rest to others."""
    with cores.owned(folder=tmp_path), contextlib.closing(cores.Loan(tmp_path)) as loan:
        assert loan.renew(2) == 2


def test_a_loan_shrinks_to_the_threads_that_help(tmp_path):
    """A small model is slower on many cores: what does not help is given back."""
    loan = cores.Loan(tmp_path)
    assert loan.renew() == 3
    assert loan.renew(2) == 1
    assert loan.renew(2) == 2 == torch.get_num_threads()
    loan.close()


def test_a_loan_inside_a_loan_changes_nothing(tmp_path):
    """Scoring after an epoch runs with the cores that the training has borrowed."""
    with cores.owned(folder=tmp_path), contextlib.closing(cores.Loan(tmp_path)) as outer:
        outer.renew()
        with contextlib.closing(cores.Loan(tmp_path)) as inner:
            assert inner.renew() == outer.threads == 3
        assert torch.get_num_threads() == 3


def test_a_worker_that_starts_gets_its_core_at_the_next_batch(tmp_path):
    """The borrower looks between two batches whether a core is wanted, and the one who waits gets it."""
    got = threading.Event()
    have = []

    def work():
        with cores.owned(folder=tmp_path) as count:
            have.append(count)
            got.set()

    with cores.owned(folder=tmp_path):
        loan = cores.Loan(tmp_path)
        assert loan.renew() == 3
        other = threading.Thread(target=work)
        other.start()
        while not got.is_set():
            loan.renew()
        other.join()
        loan.close()
    assert have == [1]


def test_more_workers_than_cores_work_without_a_core_of_their_own(tmp_path):
    """Where no core is lent, waiting would bring none: the worker goes on at once."""
    with cores.owned(3, folder=tmp_path) as all_of_them, cores.owned(folder=tmp_path) as none:
        assert (all_of_them, none) == (3, 0)


def test_a_killed_worker_leaves_its_cores(start, tmp_path):
    """The kernel releases the locks of a process that dies."""
    process = start(OWN.format(count=3))
    assert process.stdout.readline() == "3\n"
    process.kill()
    process.wait()
    with cores.owned(3, folder=tmp_path) as have:
        assert have == 3
