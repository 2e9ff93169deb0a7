"""The process that workers are forked from: it imports once what every job needs, and computes nothing itself.

    python -m autocut.search.fork_server LISTENER PARENT [TASK]

LISTENER is the inherited descriptor of a listening Unix socket, PARENT the process to die with. It writes a byte to stdout when it
has imported everything. Each connection is one job: a `relay.Request` comes in, events go out, and None is the last word.

    driver ── starts ──> fork server ── forks ──> one process a job
       └── Ray Tune ──> trial's process (relay) ── socket ──┘

A fork copies the calling thread alone, and locks as they are. So this process has one thread, runs no torch operation (which would
start a pool of threads that no child has), opens no GPU, and holds no lock: the quiet lock's files are never open here.

Whose end ends whom: the driver's this process and, by the kernel, all children; a relay's its child, with the compilers that the
child may have started; a child's its connection, which the relay notices, and nothing else. Linux only.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from autocut.parent_death import die_with
from autocut.search.imports import import_for_jobs
from autocut.search.jobs import Event, Job, Setting

Run = Callable[[Job, Setting, Callable[[Event], None]], None]


def main(arguments: Sequence[str]) -> None:
    """Import, say so, and fork until the driver is gone."""
    listener, parent, *task = arguments
    die_with(int(parent))
    import_for_jobs(task[0] if task else None)
    from autocut.search.worker import run_job

    serve(socket.socket(fileno=int(listener)), run_job)


def serve(listener: socket.socket, run: Run) -> None:
    """Fork a process for each connection to `listener`, which calls `run`; never returns."""
    # pass_fds has made it inheritable: no compiler started from here shall have it.
    listener.set_inheritable(False)
    # What is here lives on in every child: a collection there need not look at it, and so copies none of its pages.
    gc.collect()
    gc.freeze()
    _say_ready()
    _Server(listener, run).serve()


@dataclass(frozen=True)
class _Child:
    pid: int
    ended: int
    """Descriptor that is readable once the process has ended."""
    connection: socket.socket
    """Kept open, so that it can be shut down for good when the child is gone, even if a process of the child's has it too."""


class _Server:
    def __init__(self, listener: socket.socket, run: Run) -> None:
        self._listener = listener
        self._run = run
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def serve(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._listener.fileno():
                    self._accept()
                elif (child := self._children.get(descriptor)) is None:
                    continue  # it ended in this very round
                elif descriptor == child.ended:
                    self._bury(child)
                else:
                    _kill(child)
                    self._poll.unregister(child.connection)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the relay is gone again, or there is no memory for a process: the relay sees the end
            connection, _ = self._listener.accept()
            with contextlib.ExitStack() as unless_forked:
                unless_forked.enter_context(connection)
                self._fork(connection)
                unless_forked.pop_all()

    def _fork(self, connection: socket.socket) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            _be_worker(server, connection, self._run, self._close)
        with contextlib.suppress(OSError):  # both do it, so that it is done whoever runs first
            os.setpgid(pid, pid)
        child = _Child(pid, os.pidfd_open(pid), connection)
        self._children |= {child.ended: child, connection.fileno(): child}
        self._poll.register(child.ended, select.POLLIN)
        self._poll.register(connection, select.POLLRDHUP)

    def _bury(self, child: _Child) -> None:
        _kill(child)  # what it has left behind; its number is not given to another before the next line
        os.waitpid(child.pid, 0)
        for descriptor in (child.ended, child.connection.fileno()):
            del self._children[descriptor]
            with contextlib.suppress(KeyError):
                self._poll.unregister(descriptor)
        os.close(child.ended)
        with contextlib.suppress(OSError):
            child.connection.shutdown(socket.SHUT_RDWR)
        child.connection.close()

    def _close(self) -> None:
        """In a child: let go of what is the server's."""
        self._listener.close()
        for descriptor, child in self._children.items():
            if descriptor == child.ended:
                os.close(descriptor)
                child.connection.close()


def _be_worker(server: int, connection: socket.socket, run: Run, close: Callable[[], None]) -> None:
    """Run one job in this process, and end it: whatever happens, nothing of the server's goes on here."""
    status = 1
    try:
        os.setpgid(0, 0)
        die_with(server)
        close()
        _run_request(Connection(connection.detach()), run)
        status = 0
    finally:
        os._exit(status)


def _run_request(connection: Connection, run: Run) -> None:
    request = connection.recv()
    request.surroundings.adopt()
    _draw_own_numbers()
    run(request.job, request.setting, connection.send)
    connection.send(None)


def _draw_own_numbers() -> None:
    """Seed numpy as in a fresh process: a fork has its parent's state. Python's own generator sees to itself; torch's is fixed."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


def _kill(child: _Child) -> None:
    for kill in (os.killpg, os.kill):  # the process itself too: it may not lead its group yet
        with contextlib.suppress(ProcessLookupError):
            kill(child.pid, signal.SIGKILL)


def _say_ready() -> None:
    """Tell the driver, and from here on nobody anything: what libraries print leads nowhere."""
    os.write(1, b"+")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


if __name__ == "__main__":
    main(sys.argv[1:])
