"""What killed processes leave: removed by the next search, and nothing of a running one."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from autocut.execution.leftovers import _remove_abandoned, scratch_folder, temporary_files_in

_OWNER = """
import sys, time
from autocut.execution.leftovers import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    (folder / "large").write_text("x")
    print(folder, flush=True)
    time.sleep(300)
"""


@pytest.fixture
def owner(tmp_path):
    """A process with a scratch folder in `tmp_path`, and the folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_the_folder_of_a_killed_search_is_removed_and_that_of_a_running_one_is_not(tmp_path, owner):
    """The kernel releases the lock of whoever is killed."""
    process, folder = owner
    with scratch_folder(str(tmp_path)) as own:
        assert (folder / "large").exists()
    assert not own.exists()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with scratch_folder(str(tmp_path)):
        assert not folder.exists()


def test_folders_of_others_are_left_alone(tmp_path):
    """One that has no owner's lock may belong to another version."""
    (tmp_path / "autocut-tune-old").mkdir()
    with scratch_folder(str(tmp_path)):
        assert (tmp_path / "autocut-tune-old").exists()


def test_processes_that_start_put_temporary_files_into_the_scratch_folder(tmp_path, monkeypatch):
    """Whatever kills them, the files go with it. This process keeps its own place."""
    monkeypatch.setenv("TMPDIR", "/before")
    before = tempfile.gettempdir()
    with temporary_files_in(tmp_path):
        told = subprocess.run(
            [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"], capture_output=True, text=True, check=True
        )
        assert tempfile.gettempdir() == before

    assert told.stdout.strip() == str(tmp_path)
    assert os.environ["TMPDIR"] == "/before"


def test_a_folder_that_cannot_be_removed_yet_is_found_again(tmp_path, owner, monkeypatch):
    """Ray's last processes write there for some seconds more."""
    process, folder = owner
    (folder / "ray").mkdir()
    process.kill()
    process.wait()
    with monkeypatch.context() as busy:
        busy.setattr("shutil.rmtree", lambda *_, **__: None)
        _remove_abandoned(tmp_path)
    assert (folder / "ray").exists()
    _remove_abandoned(tmp_path)

    assert not folder.exists()
