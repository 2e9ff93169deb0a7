"""What keeps a process from being forked is found before it is done there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")

_TRY = """
import mmap, os, random, signal, socket, subprocess, sys, threading, time
from functools import partial
from pathlib import Path
import numpy as np
from autocut.execution import forkable
from autocut.execution.forkable import leaves_alone, what_a_fork_lacks_or_shares

forkable._PATIENCE_S = {patience_s}
kept = []

def outcome(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value

def action():
    {action}

before = what_a_fork_lacks_or_shares(None)
print(outcome(leaves_alone(action, partial(what_a_fork_lacks_or_shares, Path("/task")))))
assert what_a_fork_lacks_or_shares(None) == before  # nothing was done here
"""


def tried(action, folder, patience_s=60):
    """What a fresh process in `folder` finds of the action."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _TRY.format(action=action, patience_s=patience_s)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=True).stdout.strip()


def ends(pid, seconds=10.0):
    """Whether the process ends within some seconds; a zombie has no command line any more."""
    command, until = Path(f"/proc/{pid}/cmdline"), time.monotonic() + seconds
    while time.monotonic() < until:
        if not command.exists() or not command.read_bytes():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("action", "harmless"),
    [
        ("kept.extend(range(9)); open('/dev/null').close()", True),
        ("thread = threading.Thread(target=id, args=(0,)); thread.start(); thread.join()", True),
        ("subprocess.run(['true'])", True),
        ("sys.path.insert(0, '/task')", True),
        ("sys.path.insert(0, '/elsewhere')", False),
        ("threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", False),
        ("kept.append(open(sys.executable))", False),
        ("kept.append(mmap.mmap(-1, 1))", False),
        ("subprocess.Popen(['sleep', '99'])", False),
        ("os.environ['OF_THE_TASK'] = '1'", False),
        ("os.chdir('/')", False),
        ("random.seed(0)", False),
        ("np.random.random()", False),
        ("socket.setdefaulttimeout(9)", False),
        ("signal.signal(signal.SIGCHLD, signal.SIG_IGN)", False),
        ("raise ValueError", False),
        ("sys.exit(0)", False),
        ("os.kill(os.getpid(), 9)", False),
    ],
)
def test_an_action_is_harmless_where_a_fork_is_as_a_fresh_process(action, harmless, tmp_path):
    """What a fork lacks (threads, children), shares (files, memory) or is given (environment, folder, seeds) stays as it was."""
    assert tried(action, tmp_path) == str(harmless)


def test_an_action_that_takes_too_long_is_given_up(tmp_path):
    """A search that waits for it would never time anything."""
    assert tried("signal.alarm(0); time.sleep(60)", tmp_path, patience_s=1) == "False"


def test_what_an_action_starts_ends_with_it(tmp_path):
    """It would work on while others time, and after the search."""
    started = tmp_path / "pid"

    assert tried(f"Path({str(started)!r}).write_text(str(subprocess.Popen(['sleep', '99']).pid))", tmp_path) == "False"
    assert ends(int(started.read_text()))
