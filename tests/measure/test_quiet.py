"""The quiet lock, with real processes."""

import contextlib
import fcntl
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from autocut.errors import DeadlineError
from autocut.measure.quiet import QuietLock
from autocut.node import node_folder

PREAMBLE = (
    "import sys, time; from pathlib import Path; from autocut.measure.quiet import QuietLock; lock = QuietLock(Path(sys.argv[1]))\n"
)


@pytest.fixture
def start(tmp_path):
    """Run Python in another process with `lock` at hand, and wait until it says something."""
    running = []

    def begin(code):
        script = PREAMBLE + textwrap.dedent(code)
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


HOLD = """
    with lock.{side}():
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path):
    """The same lock in this process."""
    return QuietLock(tmp_path)


@pytest.mark.parametrize(("theirs", "mine"), [("exclusive", "shared"), ("exclusive", "exclusive"), ("shared", "exclusive")])
def test_one_side_keeps_the_other_out(start, lock, theirs, mine):
    """Work and measurement exclude each other, and so do two measurements."""
    start(HOLD.format(side=theirs))
    with pytest.raises(DeadlineError), getattr(lock, mine)(timeout_s=0.1):
        pytest.fail("both were let in")


def test_workers_share_the_lock(start, lock):
    """Training batches run side by side."""
    start(HOLD.format(side="shared"))
    with lock.shared(timeout_s=5):
        pass


def test_while_one_is_urgent_the_others_work_but_do_not_time(start, lock):
    """Its own work goes on between their timings, which would each take longer than it."""
    start(HOLD.format(side="urgent"))
    with lock.shared(timeout_s=5.0):
        pass
    with pytest.raises(DeadlineError), lock.exclusive(timeout_s=0.1):
        pytest.fail("it was let in")


def test_who_is_urgent_may_be_alone(start, lock):
    """Two urgent ones take turns as any others."""
    start(HOLD.format(side="urgent"))
    with lock.urgent(), lock.exclusive(timeout_s=5.0):
        pass


@pytest.mark.parametrize("side", ["shared", "exclusive"])
def test_a_killed_holder_lets_go(start, lock, side):
    """After kill -9 there is no stale lock: the kernel releases it."""
    holder = start(HOLD.format(side=side))
    holder.kill()
    with lock.exclusive(timeout_s=5):
        pass


def test_a_tight_loop_of_workers_does_not_starve_a_measurement(start, lock):
    """Two processes that overlap without a gap would keep a plain read-write lock forever."""
    loop = """
        print("ready", flush=True)
        while True:
            with lock.shared():
                time.sleep(0.01)
    """
    start(loop)
    start(loop)
    for _ in range(3):
        with lock.exclusive(timeout_s=10):
            pass


def test_no_process_works_while_another_is_alone(start, lock, tmp_path):
    """A busy worker makes no step between entering and leaving the exclusive side."""
    counter = tmp_path / "steps"
    start(f"""
        print("ready", flush=True)
        for step in range(10**6):
            with lock.shared():
                Path({str(counter)!r}).write_text(str(step))
    """)
    time.sleep(0.1)
    with lock.exclusive(timeout_s=10):
        before = counter.read_text()
        time.sleep(0.1)
        after = counter.read_text()
    assert before == after


def test_waiting_ends_when_the_trial_is_stopped(start, lock):
    """A deadline also ends waiting."""
    start(HOLD.format(side="shared"))
    asked = []
    with (
        pytest.raises(DeadlineError, match="was up while it waited"),
        lock.exclusive(stop=lambda: asked.append(1) or len(asked) > 3),
    ):
        pytest.fail("let in")
    assert len(asked) == 4


def test_giving_up_lets_the_others_pass(start, lock):
    """A process that gave up does not leave the turnstile locked."""
    start(HOLD.format(side="shared"))
    with pytest.raises(DeadlineError), lock.exclusive(timeout_s=0.05):
        pytest.fail("let in")
    with lock.shared(timeout_s=5):
        pass


def test_threads_exclude_each_other(lock):
    """The lock belongs to a thread, not to the process."""
    refused = []

    def try_to_work():
        try:
            with lock.shared(timeout_s=0.05):
                pass
        except DeadlineError:
            refused.append(True)

    with lock.exclusive():
        thread = threading.Thread(target=try_to_work)
        thread.start()
        thread.join()
    assert refused == [True]


def test_asking_twice_for_the_same_side_is_no_deadlock(lock):
    """A batch inside a stage may take the lock that the stage has."""
    with lock.shared(), lock.shared(timeout_s=1):
        pass
    with lock.exclusive(), lock.exclusive(timeout_s=1), lock.shared(timeout_s=1):
        pass


def test_asking_to_be_alone_while_working_is_an_error(lock):
    """It would wait for itself."""
    with lock.shared():
        with pytest.raises(RuntimeError, match="wait for itself"), lock.exclusive():
            pytest.fail("let in")
        with lock.shared(timeout_s=1):
            pass


def test_an_exception_inside_releases(lock):
    """A trial that fails while it measures does not block the machine."""
    with pytest.raises(ZeroDivisionError), lock.exclusive():
        raise ZeroDivisionError
    with lock.exclusive(timeout_s=1):
        pass


def test_without_a_folder_the_whole_machine_is_one(monkeypatch, tmp_path):
    """Two searches on one machine must not time side by side."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert QuietLock().folder == QuietLock().folder == node_folder()
    assert node_folder().is_dir()


def test_who_steps_aside_in_long_work_lets_a_waiting_process_be_alone(tmp_path):
    """A calibration of minutes would keep a timing waiting to its end."""
    entered = []
    lock = QuietLock(tmp_path, waiting=lambda: contextlib.nullcontext(entered.append("waited")))
    with lock.shared():
        lock.step_aside()
        assert entered == []  # nobody waits: nothing is given up
        other = threading.Thread(target=_be_alone, args=(QuietLock(tmp_path), log := []))
        other.start()
        while _is_free(tmp_path / "turnstile.lock"):
            time.sleep(0.001)
        assert log == []
        lock.step_aside()
        assert (log, entered) == (["alone", "done"], ["waited"])
        with pytest.raises(DeadlineError), QuietLock(tmp_path).exclusive(timeout_s=0.05):
            pytest.fail("the hold was not taken again")
    other.join()
    with lock.exclusive(timeout_s=5):
        lock.step_aside()  # who is alone gives nothing up
        with pytest.raises(DeadlineError), QuietLock(tmp_path).shared(timeout_s=0.05):
            pytest.fail("let in")
    lock.step_aside()  # who holds nothing takes nothing
    with QuietLock(tmp_path).exclusive(timeout_s=5):
        pass


def _be_alone(lock, log):
    with lock.exclusive():
        log.append("alone")
        time.sleep(0.05)
        log.append("done")


def _is_free(path):
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
