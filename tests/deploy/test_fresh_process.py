"""The process that verifies a bundle: it starts fresh, without user code, and its end is told whatever ends it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from autocut.deploy.fresh_process import FreshProcess, clean_environment
from autocut.deploy.verify import verify_bundle
from autocut.deploy.verify_process import foreign_modules


def test_the_fresh_process_cannot_import_the_users_code(users_task, monkeypatch, tmp_path):
    """Neither from the working folder nor from PYTHONPATH."""
    folder = str(next(iter(users_task.__spec__.origin.rsplit("/", 1))))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", folder)
    code = "import importlib.util as u, sys, autocut; sys.exit(3 if u.find_spec('users_task') else 0)"

    assert importlib.util.find_spec("users_task") is not None
    assert subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=clean_environment(), check=False).returncode == 0


def test_user_code_in_the_process_would_be_seen(users_task):
    """The module that this process did import is foreign; autocut and torch are not."""
    found = foreign_modules()

    assert "users_task" in found
    assert not {"torch", "autocut", "json", "numpy"} & set(found)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('no kernel')", "exit code 1: ValueError: no kernel"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    ],
)
def test_a_process_that_dies_is_reported_with_its_last_line(code, reason):
    """A runtime may raise any error or crash the process, before the question or after it."""
    with FreshProcess(command=(sys.executable, "-c", code)) as process:
        process.start()
        process.wait_until_ready(30.0)
        assert process.ask({}, 30.0) == reason
    ready = "import os, sys; os.close(int(sys.argv[4])); input()"
    with FreshProcess(command=(sys.executable, "-c", f"{ready}; {code}")) as process:
        assert process.ask({}, 30.0) == reason


def test_the_fresh_process_starts_without_a_compiler_cache(bundle, monkeypatch, tmp_path):
    """A warm cache would make the first start on a server look short."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    code = "import os; cache = os.environ['TORCHINDUCTOR_CACHE_DIR']; raise SystemExit(f'{cache} {os.path.exists(cache)}')"
    with FreshProcess(command=(sys.executable, "-c", code)) as process:
        verification = verify_bundle(bundle, process=process)

    cache, exists = verification.failed[0].found.removeprefix("exit code 1: ").split()
    assert Path(cache) != tmp_path
    assert exists == "False"


def test_a_process_that_was_started_before_imports_and_waits(new_bundle):
    """It is ready before there is a question, here of an int8 bundle of ONNX Runtime; without a question it ends with its block."""
    bundle = new_bundle(dtype="int8_static", mode="onnxruntime")
    with FreshProcess() as process:
        process.start()
        process.wait_until_ready(120.0)
        assert os.read(process._ready, 1) == b""
        assert process._process.poll() is None
        verification = verify_bundle(bundle, process=process, latency_tolerance=0.9)
        assert verification.ok, [check.message for check in verification.failed]
    with FreshProcess() as unasked:
        unasked.start()
    assert unasked._process.poll() is not None


def test_a_fork_that_does_not_answer_costs_no_verification(bundle, tmp_path):
    """Its process is ended, and the bundle is verified in another one."""
    question = {"bundle": str(bundle), "batch_size": 16, "layouts": [(1, 1)], "processors": 1, "most_s": 60.0}
    with FreshProcess() as process:
        process.start()
        process.wait_until_ready(120.0)
        first = process._process
        assert process.ask_fork(question, tmp_path / "layouts.json", 0.0) == "no answer within 0 s"
        assert first.poll() is not None
        assert verify_bundle(bundle, process=process, latency_tolerance=0.9).ok


_CHILD = """
import sys, time
from autocut.measure.parent_death import die_with
die_with(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(120)
"""
_PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())], start_new_session=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_the_fresh_process_dies_with_the_worker_that_asked(tmp_path):
    """It leads a session of its own, so nothing else would end it, and it would disturb the next measurement."""
    command = [sys.executable, "-c", _PARENT, _CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment(), text=True) as worker:
        assert worker.stdout.readline() == "ready\n"
        worker.kill()
        # The child holds the other end of the pipe, which closes when the child ends.
        worker.communicate(timeout=60)


def test_a_process_whose_parent_is_gone_does_not_start(tmp_path):
    """The worker may die while the fresh process imports torch; here the parent is this process, and process 0 was asked for."""
    with FreshProcess(command=(sys.executable, "-c", _CHILD, "0")) as process:
        ended = process.ask({}, 60.0)

    assert ended == "exit code 1: process 0, which started this work, has ended"


def test_module_type_is_what_foreign_modules_expects(monkeypatch):
    """A module without a file (built in, or made on the fly) is skipped."""
    monkeypatch.setitem(sys.modules, "made_on_the_fly", ModuleType("made_on_the_fly"))

    assert "made_on_the_fly" not in foreign_modules()
