"""The process that workers are forked from: it imports and reads once what every job needs (`preparation`).

    python -m autocut.execution.fork_server LISTENER PARENT [TASK]

LISTENER is the inherited descriptor of a listening Unix socket, PARENT the process to die with. Each connection is one call: a
`relay.Request` comes in, what the call reports goes out, and None is the last word.

What jobs need at once is imported first, what they may need later when its stdin is closed: while the first of them works. It
writes a byte to stdout after either: until then its work would disturb who times. The task's data comes last: forks share its pages
of memory for as long as they do not write to them.

    driver ── starts ──> fork server ── forks ──> one process a job
       └── Ray Tune ──> trial's process (relay) ── socket ──┘

A fork copies the calling thread alone, and locks as they are. So this process has one thread, opens no GPU, and holds no lock: the
quiet lock's files are never open here. What the task does of its own is tried out in another process before (`forkable`).

Whose end ends whom: the driver's this process and, by the kernel, all children; a relay's its child, with the compilers that the
child may have started; a child's its connection, which the relay notices, and nothing else. Linux only.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from autocut.execution.preparation import import_for_start, prepare_for_later
from autocut.execution.server_process import READY, UP
from autocut.measure.parent_death import die_with, kill_group


def main(arguments: Sequence[str]) -> None:
    """Import, and fork until the driver is gone."""
    listener, parent, *task = arguments
    die_with(int(parent))
    serve(socket.socket(fileno=int(listener)), import_for_start, prepare_for_later(task[0] if task else None))


def serve(listener: socket.socket, first: Callable[[], None] = lambda: None, later: Iterable[object] = ()) -> None:
    """Call `first`, then fork a process for each connection to `listener`; never returns.

    Once stdin is closed, `later` is gone through, a step between two looks at the listener.
    """
    # pass_fds has made it inheritable: no compiler started from here shall have it.
    listener.set_inheritable(False)
    server = _Server(listener)
    first()
    server.say(UP)
    while not server.goes_on:
        server.attend()
    for _ in later:
        server.attend(timeout_s=0)
    # What is here lives on in every child: a collection there need not look at it, and so copies none of its pages.
    gc.collect()
    gc.freeze()
    server.say(READY)
    _be_silent(2)
    while True:
        server.attend()


@dataclass(frozen=True)
class _Child:
    pid: int
    ended: int
    """Descriptor that is readable once the process has ended."""
    connection: socket.socket
    """Kept open, so that it can be shut down for good when the child is gone, even if a process of the child's has it too."""


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._poll.register(0, select.POLLIN)
        self.goes_on = False
        self._driver = os.dup(1)
        _be_silent(1)  # what libraries print is no word to the driver; what they complain of is, until everything is imported

    def say(self, word: bytes) -> None:
        """Tell the driver, and nobody else."""
        os.write(self._driver, word)

    def attend(self, timeout_s: float | None = None) -> None:
        """Wait, at most `timeout_s`, until somebody wants a process or one has ended, and see to it."""
        for descriptor, _ in self._poll.poll(None if timeout_s is None else 1e3 * timeout_s):
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor == 0:
                self._poll.unregister(0)
                self.goes_on = True
            elif (child := self._children.get(descriptor)) is None:
                continue  # it ended in this very round
            elif descriptor == child.ended:
                self._bury(child)
            else:
                kill_group(child.pid)
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
            _be_worker(server, connection, self._close)
        with contextlib.suppress(OSError):  # both do it, so that it is done whoever runs first
            os.setpgid(pid, pid)
        child = _Child(pid, os.pidfd_open(pid), connection)
        self._children |= {child.ended: child, connection.fileno(): child}
        self._poll.register(child.ended, select.POLLIN)
        self._poll.register(connection, select.POLLRDHUP)

    def _bury(self, child: _Child) -> None:
        kill_group(child.pid)  # what it has left behind; its number is not given to another before the next line
        with contextlib.suppress(ChildProcessError):  # code of the task's, which is run here once, has awaited whoever ended
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
        os.close(self._driver)
        _be_silent(0)
        _be_silent(2)
        for descriptor, child in self._children.items():
            if descriptor == child.ended:
                os.close(descriptor)
                child.connection.close()


def _be_worker(server: int, connection: socket.socket, close: Callable[[], None]) -> None:
    """Make one call in this process, and end it: whatever happens, nothing of the server's goes on here."""
    status = 1
    try:
        os.setpgid(0, 0)
        die_with(server)
        close()
        _run_request(Connection(connection.detach()))
        status = 0
    finally:
        os._exit(status)


def _run_request(connection: Connection) -> None:
    request = connection.recv()
    request.surroundings.adopt()
    _draw_own_numbers()
    request.call(connection.send)
    connection.send(None)


def _draw_own_numbers() -> None:
    """Seed numpy as in a fresh process: a fork has its parent's state. Python's own generator sees to itself; torch's is fixed."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


def _be_silent(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, stream)
    os.close(nowhere)


if __name__ == "__main__":
    main(sys.argv[1:])
