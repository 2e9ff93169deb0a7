"""A fork server without libraries, and calls for it to make: `python stub_fork_server.py LISTENER PARENT [SLOW IMPORTS]`."""

import ctypes
import faulthandler
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from autocut.execution.fork_server import serve
from autocut.measure.parent_death import die_with


def segfault(report):
    """Read where nothing is."""
    ctypes.string_at(0)


def divide_by_zero(report):
    """As native code that divides does."""
    os.kill(os.getpid(), signal.SIGFPE)


def fail(report):
    """Raise what is not caught."""
    raise ValueError("not expected")


def hang(report):
    """Tell the process, and do nothing."""
    report(os.getpid())
    time.sleep(300)


def say_nothing(report):
    """Do nothing for long."""
    time.sleep(300)


def hang_holding_the_interpreter(report):
    """Like a library that computes without releasing the interpreter's lock: no thread of this process gets to run."""
    report(os.getpid())
    ctypes.PyDLL(None).sleep(300)


def hang_until_the_alarm(report):
    """Be killed by faulthandler's timer, as a worker that hangs is."""
    faulthandler.dump_traceback_later(0.2, exit=True, file=os.open(os.devnull, os.O_WRONLY))
    time.sleep(300)


def compile_something(report):
    """Start a process that would go on alone, as a compiler does."""
    report(subprocess.Popen(["sleep", "300"]).pid)
    time.sleep(300)


def tell_numbers(report):
    """Draw from the global generators."""
    report((random.random(), np.random.random()))


def tell_surroundings(report):
    """What the process has inherited."""
    oom_score = Path("/proc/self/oom_score_adj").read_text().strip()
    report((os.environ["RAY_SAYS"], str(Path.cwd()), sys.path[-1], os.nice(0), oom_score))


def tell_descriptors(report):
    """What the process has open, but for the folder that it looks into."""
    report(sorted(str(link.readlink()) for link in list(Path("/proc/self/fd").iterdir()) if link.is_symlink()))


def chatter(report):
    """Print, and tell the parent."""
    os.write(1, b"to stdout")
    os.write(2, b"to stderr")
    report(os.getppid())


def import_something(steps):
    """Take a while, and print."""
    for step in range(steps):
        os.write(1, b"ur")
        time.sleep(0.2)
        yield step


if __name__ == "__main__":
    die_with(int(sys.argv[2]))
    serve(socket.socket(fileno=int(sys.argv[1])), later=import_something(int(sys.argv[3]) if len(sys.argv) > 3 else 0))
