"""The process that workers are forked from: it imports and reads once what every job needs (`preparation`).

    python -m autocut.execution.fork_server LISTENER PARENT [TASK]

LISTENER is the inherited descriptor of a listening Unix socket, PARENT the process to die with. Each connection is one call: a
call and its `Surroundings` come in, the process's number and what the call reports go out, and None comes last. How a child ended
that has not come to its end is written beside the socket (`ending_file`).

What jobs begin with is imported first. What they may need later is imported when stdin is closed, while the first job works. After
each of the two the server writes a byte to stdout: until then its work would disturb those who measure time. The task's data comes
last: forks share its pages of memory for as long as they do not write to them.

    driver ── starts ──> fork server ── forks ──> one process a job
       └── Ray Tune ──> trial's process (relay) ── socket ──┘

A fork copies the calling thread alone, and locks as they are. So this process has one thread, opens no GPU, and holds no lock: the
quiet lock's files are never open here. What the task's own code does is tried out in another process before (`forkable`).

When the driver ends, this process ends, and the kernel ends all children. When a relay ends, its child ends, with the compilers
that the child has started. When a child ends, its connection closes, which the relay notices. Linux only.

Why not the standard library's `forkserver` with preloaded modules? A job starts as fast there: 23 to 44 ms from request to first
event, medians of 20, against 24 to 45 ms here (Python 3.11, 2026-11-28, two shared cores). But it listens only when everything is
imported: the first event of a search would come after 6.5 s instead of 2.5 s. Only the process that starts it and that one's
children can use it, and relays are neither. It does not say when it is idle. When a caller dies, it ends no child and no compiler.
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

from autocut.execution.fork_client import ending_file
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

    Once stdin is closed, go through `later`, and look at the listener after each step.
    """
    # pass_fds has made it inheritable; compilers that are started from here must not have it.
    listener.set_inheritable(False)
    server = _ForkServer(listener)
    first()
    server.say(UP)
    while not server.prepares_rest:
        server.attend()
    for _ in later:
        server.attend(timeout_s=0)
    # Every child has these objects too. Frozen, a collection there does not look at them, and so copies none of their pages.
    gc.collect()
    gc.freeze()
    server.say(READY)
    _silence(2)
    while True:
        server.attend()


@dataclass(frozen=True)
class _Child:
    pid: int
    ended: int
    """Descriptor that is readable once the process has ended."""
    connection: socket.socket
    """Kept open to be shut down when the child is gone: a process that the child has started may have it open too."""


class _ForkServer:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._address = listener.getsockname()
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._poll.register(0, select.POLLIN)
        self.prepares_rest = False
        self._driver = os.dup(1)
        # What libraries print must not reach the driver. Their errors must, until everything is imported.
        _silence(1)

    def say(self, word: bytes) -> None:
        """Tell the driver."""
        os.write(self._driver, word)

    def attend(self, timeout_s: float | None = None) -> None:
        """Wait, at most `timeout_s`, until a caller wants a process or a process has ended, and see to it."""
        for descriptor, _ in self._poll.poll(None if timeout_s is None else 1e3 * timeout_s):
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor == 0:
                self._poll.unregister(0)
                self.prepares_rest = True
            elif (child := self._children.get(descriptor)) is None:
                continue  # it ended in this very round
            elif descriptor == child.ended:
                self._remove(child)
            else:  # its caller is gone
                kill_group(child.pid)
                self._poll.unregister(child.connection)

    def _accept(self) -> None:
        # The caller is gone again, or there is no memory for a process: then the caller sees its connection end.
        with contextlib.suppress(OSError):
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
        with contextlib.suppress(OSError):  # parent and child both do it, so that it is done whichever runs first
            os.setpgid(pid, pid)
        child = _Child(pid, os.pidfd_open(pid), connection)
        self._children |= {child.ended: child, connection.fileno(): child}
        self._poll.register(child.ended, select.POLLIN)
        self._poll.register(connection, select.POLLRDHUP)

    def _remove(self, child: _Child) -> None:
        kill_group(child.pid)  # what it has left running; no other process has its number before the next line
        with contextlib.suppress(ChildProcessError):  # the task's code, which runs here once, may have waited for every child
            self._write_down(child.pid, os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
        for descriptor in (child.ended, child.connection.fileno()):
            del self._children[descriptor]
            with contextlib.suppress(KeyError):
                self._poll.unregister(descriptor)
        os.close(child.ended)
        with contextlib.suppress(OSError):
            child.connection.shutdown(socket.SHUT_RDWR)
        child.connection.close()

    def _write_down(self, pid: int, code: int) -> None:
        """Before the connection is shut down: its caller then looks for the file."""
        if code != 0:
            with contextlib.suppress(OSError):  # without it, the caller takes it that this process has died
                ending_file(self._address, pid).write_text(str(code), encoding="ascii")

    def _close(self) -> None:
        """In a child: close what is the server's."""
        self._listener.close()
        os.close(self._driver)
        _silence(0)
        _silence(2)
        for descriptor, child in self._children.items():
            if descriptor == child.ended:
                os.close(descriptor)
                child.connection.close()


def _be_worker(server: int, connection: socket.socket, close: Callable[[], None]) -> None:
    """In a child: make one call, and end. It never returns into the server's code, whatever happens."""
    status = 1
    try:
        os.setpgid(0, 0)
        die_with(server)
        close()
        _answer(Connection(connection.detach()))
        status = 0
    finally:
        os._exit(status)


def _answer(connection: Connection) -> None:
    call, surroundings = connection.recv()
    surroundings.adopt()
    connection.send(os.getpid())
    if numpy := sys.modules.get("numpy"):
        # A fork has its parent's state. Python seeds its own generator in a fork; torch's has the same seed in a fresh process.
        numpy.random.seed()
    call(connection.send)
    connection.send(None)


def _silence(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, stream)
    os.close(nowhere)


if __name__ == "__main__":
    main(sys.argv[1:])
