"""Forked workers: one process a job. Its end disturbs no other, and it does not outlive its caller."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from autocut.execution.fork_client import WorkerDiedError, run_in_fork
from autocut.execution.server_process import ServerProcess
from autocut.execution.worker import run_job
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.search.jobs import Job, RecipeMeasured, Setting, StageRan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")

STUB = Path(__file__).with_name("stub_fork_server.py")
sys.path.append(str(STUB.parent))  # the server gets this process's search path, and imports from it what it is to call
stub = importlib.import_module(STUB.stem)

_RELAY = """
import sys
from test_fork_server import run
run(sys.argv[1], sys.argv[2], lambda event: print(event, flush=True))
"""
_DRIVER = """
import sys, threading, time
from pathlib import Path
from test_fork_server import STUB, ServerProcess, run
with ServerProcess(Path(sys.argv[1]), command=(sys.executable, str(STUB))) as server:
    server.start()
    run(server.address, "hang", lambda event: print(event, flush=True))
"""


def run(address, name, report):
    """Make a call of the stub's in a fork."""
    run_in_fork(address, getattr(stub, name), report)


def told(address, name):
    """What the call reports."""
    reports = []
    run(address, name, reports.append)
    return reports


def wait_for(condition, seconds=10.0):
    """Wait until `condition()` holds; False if it never does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_gone(pid):
    """Whether no process `pid` runs; another process's zombie is gone too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def children_of(pid):
    """Processes whose parent is `pid`, zombies included."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def python(code, *arguments):
    """A process that can import this module."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(STUB.parent), *filter(None, sys.path)])}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


@pytest.fixture
def server(tmp_path_factory):
    """A running server of the stub's jobs."""
    with ServerProcess(tmp_path_factory.mktemp("fork"), command=(sys.executable, str(STUB))) as process:
        process.prepare_rest()
        process.start()
        assert wait_for(lambda: process.is_running and process.is_ready)
        yield process


def server_pid(server):
    """Process that forks: the parent of a job's."""
    return told(server.address, "chatter")[0]


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("segfault", "crashed: Segmentation fault .SIGSEGV"),
        ("divide_by_zero", "crashed: Floating point exception .SIGFPE"),
        ("fail", "exit code 1"),
        ("hang_until_the_alarm", "exit code 1"),
    ],
)
def test_a_worker_that_dies_ends_its_relay_alone(server, end, how):
    """However it ends, its relay says how; the server forks the next one, and leaves no zombie and no file."""
    with pytest.raises(WorkerDiedError, match=how) as died:
        run(server.address, end, lambda _: None)
    assert not died.value.is_blameless
    assert [path.name for path in Path(server.address).parent.glob("ended-*")] == []

    pid = server_pid(server)
    assert wait_for(lambda: not children_of(pid))


def test_a_worker_killed_for_memory_ends_its_relay(server):
    """The kernel kills as here: without asking."""
    with pytest.raises(WorkerDiedError, match="SIGKILL") as died:
        run(server.address, "hang", lambda event: os.kill(event, signal.SIGKILL))
    assert died.value.is_blameless


def test_a_worker_that_dies_with_its_server_is_not_to_blame(server):
    """Nobody is left who could say how it ended."""
    pid = server_pid(server)
    with pytest.raises(WorkerDiedError, match="forked from died") as died:
        run(server.address, "hang", lambda event: os.kill(pid, signal.SIGKILL))
    assert died.value.is_blameless


@pytest.mark.parametrize("work", ["hang", "hang_holding_the_interpreter", "compile_something"])
def test_a_worker_dies_with_its_relay(server, work):
    """Ray kills the relay at the deadline: the worker goes, even where no thread of it can run, and so do compilers it started."""
    with python(_RELAY, server.address, work) as relay:
        pid = int(relay.stdout.readline())
        assert not is_gone(pid)
        relay.kill()

    assert wait_for(lambda: is_gone(pid))
    assert server.is_running


def test_all_workers_die_with_the_server(server):
    """The relay sees a death, the agent queues the job again."""
    with python(_RELAY, server.address, "hang") as relay:
        pid = int(relay.stdout.readline())
        os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        assert relay.wait(10) == 1

    assert wait_for(lambda: is_gone(pid))
    assert wait_for(lambda: server.how_it_ended == "killed by SIGKILL")


def test_server_and_workers_die_with_the_driver(tmp_path):
    """`kill -9` of the driver leaves no process that works for nothing."""
    with python(_DRIVER, str(tmp_path)) as driver:
        worker = int(driver.stdout.readline())
        forker = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        driver.kill()

    assert wait_for(lambda: is_gone(worker) and is_gone(forker))


def test_a_job_waits_for_a_server_that_starts_again(server):
    """The driver keeps the socket: a relay that connects meanwhile is served by the next server."""
    os.kill(server_pid(server), signal.SIGKILL)
    assert wait_for(lambda: not server.is_running)
    found = []
    waiting = threading.Thread(target=lambda: found.extend(told(server.address, "tell_numbers")))
    waiting.start()
    server.start()
    waiting.join(20)

    assert len(found) == 1
    assert wait_for(lambda: server.is_running and server.is_ready)
    assert server.failed_starts == 0


def test_what_is_needed_later_is_imported_while_the_first_job_works(tmp_path):
    """Not before, and no job waits for it. What libraries print meanwhile is not taken for the server's word that it is ready."""
    with ServerProcess(tmp_path, ["5"], command=(sys.executable, str(STUB))) as process:
        process.start()
        assert told(process.address, "chatter")
        assert wait_for(lambda: process.is_running and process.is_idle)
        assert not wait_for(lambda: process.is_running and process.is_ready, seconds=1.0)
        process.prepare_rest()
        assert not process.is_idle
        assert len(told(process.address, "tell_numbers")) == 1
        assert process.is_running
        assert not process.is_ready

        assert wait_for(lambda: process.is_running and process.is_ready)
        assert len(told(process.address, "tell_numbers")) == 1


def test_a_call_that_says_nothing_in_time_is_given_up(server):
    """Its process goes with the relay's connection."""
    with pytest.raises(WorkerDiedError, match="said nothing"):
        run_in_fork(server.address, stub.say_nothing, lambda _: None, timeout_s=0.2)


def test_a_server_that_never_comes_up_is_counted_and_told(tmp_path):
    """The driver gives up after a few, with the last line that the server said."""
    with ServerProcess(tmp_path, command=(sys.executable, "-c", "raise SystemExit('no torch here')")) as broken:
        for _ in range(2):
            broken.start()
            assert wait_for(lambda: not broken.is_running)

        assert broken.failed_starts == 2
        assert broken.how_it_ended == "exit code 1: no torch here"


def test_workers_draw_numbers_of_their_own(server):
    """A fork has its parent's random state: two workers would shuffle alike."""
    first, second = (told(server.address, "tell_numbers")[0] for _ in range(2))

    assert not set(first) & set(second)


def test_a_worker_has_the_surroundings_of_its_relay(server, tmp_path, monkeypatch):
    """As if Ray had started it: environment, folder, search path, priority, and who is killed first for memory."""
    monkeypatch.setenv("RAY_SAYS", "hello")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("/nowhere/else")
    monkeypatch.setattr(sys, "path", [*sys.path, "/last"])
    oom_score = Path("/proc/self/oom_score_adj").read_text().strip()

    assert told(server.address, "tell_surroundings") == [("hello", str(tmp_path), "/last", os.nice(0), oom_score)]


def test_a_worker_has_nothing_open_but_its_own_connection(server):
    """No listener, no other worker's connection, no lock; what it prints leads nowhere."""
    with python(_RELAY, server.address, "hang") as other:
        other.stdout.readline()
        (opened,) = told(server.address, "tell_descriptors")
        other.kill()

    assert sorted(name.partition(":")[0] for name in opened) == ["/dev/null"] * 3 + ["socket"]


@pytest.mark.slow
def test_a_fork_compiles_and_measures_as_a_fresh_process_does(small_task_file, tmp_path, monkeypatch):
    """The heaviest libraries work in a fork, on as many threads as asked, and compile into the study's own cache."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch sets it in a process that has compiled: this one, perhaps
    setting = Setting(str(small_task_file), str(tmp_path / "study"), 0, 1, 10**9, Price("test", 0.1, "today"), "autocut search")
    lowerings = [Recipe().with_lowering("fp32", "onnxruntime"), Recipe().with_lowering("fp32", "torch_compile")]
    jobs = [Job(1, "baseline", (Recipe(),), time.time() + 300, ""), Job(2, "measure", tuple(lowerings), time.time() + 300, "")]
    events = []
    (tmp_path / "fork").mkdir()
    with ServerProcess(tmp_path / "fork", [str(small_task_file)]) as process:
        process.start()
        run_in_fork(process.address, partial(run_job, jobs[0], setting), events.append)
        process.prepare_rest()
        assert wait_for(lambda: process.is_running and process.is_ready, seconds=100)
        run_in_fork(process.address, partial(run_job, jobs[1], setting), events.append)

    assert [event.recipe for event in events if isinstance(event, RecipeMeasured)] == [Recipe(), *lowerings]
    assert {event.measured.measurement.cost.threads for event in events if isinstance(event, RecipeMeasured)} == {1}
    assert list((tmp_path / "study" / "stages" / "inductor").iterdir())
    # The first job has read the data itself, the second found it read: it is the same task to both.
    baselines = [event for event in events if isinstance(event, StageRan) and event.stage == "baseline"]
    assert len({event.key for event in baselines}) == 1
    assert baselines[-1].cached


def test_a_relay_does_not_import_torch():
    """Ray starts a few of them, and their memory adds up."""
    code = "import sys, autocut.execution.fork_client, autocut.execution.worker; print('torch' in sys.modules)"
    with python(code) as process:
        assert process.stdout.read() == "False\n"
