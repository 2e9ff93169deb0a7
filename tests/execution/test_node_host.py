"""What runs on a node: the look at it, and the relay of a job."""

import os
import pickle
from types import SimpleNamespace

import pytest

from autocut.execution import node_host
from autocut.execution.node_host import NodePlace, run_at, shared_fault
from autocut.price import Price
from autocut.search.jobs import Setting

PLACE = NodePlace("n", "/node/fork.sock", "/node/scratch", "/node/task.py")


def test_a_shared_folder_is_the_one_that_the_driver_sees(tmp_path):
    """It must hold the driver's word, and nothing is left there by the look."""
    (tmp_path / "marker").write_text("word")

    assert shared_fault(tmp_path, "marker", "word") == ""
    assert [path.name for path in tmp_path.iterdir()] == ["marker"]


@pytest.mark.parametrize(
    ("folder", "word", "fault"),
    [
        ("missing", "word", "there is no such folder"),
        (".", "word", "an empty folder is there"),
        (".", None, "another folder is there"),
    ],
)
def test_a_folder_that_is_not_shared_is_told(tmp_path, folder, word, fault):
    """A mount that is missing looks like an empty folder; two nodes with disks of their own look alike."""
    if word is None:
        (tmp_path / "marker").write_text("the word of another driver")

    assert fault in shared_fault(tmp_path / folder, "marker", word or "word")


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    """As a read-only mount."""
    (tmp_path / "marker").write_text("word")
    monkeypatch.setattr(node_host.os, "uname", lambda: SimpleNamespace(nodename="no/such/place"))

    assert "cannot be written" in shared_fault(tmp_path, "marker", "word")


@pytest.fixture
def relayed(monkeypatch):
    """Calls `run_at` with a fork that does what it is given; returns the call that the fork was sent."""
    for name in ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "/the/driver")
    setting = Setting("/home/driver/task.py", "/shared/study", 0, 1, 10**9, Price("test", 0.1, "today"), "autocut search")
    job = SimpleNamespace(deadline=setting.clock() + 60)

    def relay(fork, report):
        sent = []
        monkeypatch.setattr(node_host, "run_in_fork", lambda address, call, told: (sent.append(call), fork(told)))
        run_at(PLACE, job, setting, report)
        return sent[0]

    return relay


def test_no_path_of_the_driver_reaches_a_job(relayed):
    """Its task is where the node has it, and what is temporary goes to the node's own disk."""
    call = relayed(lambda told: told("up"), lambda event: None)

    assert call.args[1].task_path == "/node/task.py"
    assert b"/home/driver" not in pickle.dumps(call.args[1])
    assert os.environ["TMPDIR"] == "/node/scratch"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith("/node/scratch")
