"""Locks of the searches of one study: who searches it, and who opens it right now.

Any number of searches may work on a study. Each holds a lock that bears the number of its session, so the others know whether it is
alive: the kernel, or the database server, releases the lock when the process ends, even by a kill. One search at a time has the
turn. It opens the study, or clears up after a dead search, while no other one does.

    <folder>/search.lock ........... shared by all searches; an earlier autocut wants it for itself alone
    <folder>/searches/turn ......... the turn
    <folder>/searches/<session> .... a search that is alive

Folders on two nodes may belong to one study on a database server. Then the server's locks decide (`server_lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import sqlalchemy

from autocut.errors import StudyError
from autocut.study.server_lock import ServerLocks

LOCK_FILE = "search.lock"
SEARCHES = "searches"
_TURN = "turn"
_TURN_S = 300.0
"""Opening a study on a cluster takes a minute, because its nodes are looked at meanwhile."""
_LOOK_S = 0.05
_ELSEWHERE = "search into another folder: --out FOLDER"


class SearchLock:
    """The locks of one search. It has the turn from construction to `end_turn`.

    Args:
        folder: Folder of the study.
        name: Name of the study.
        server: The database server of the study, if it has one that several nodes share.

    Raises:
        StudyError: An earlier autocut searches this study, or another search has opened it for minutes.
    """

    def __init__(self, folder: Path, name: str, server: sqlalchemy.Engine | None = None) -> None:
        self._here = FolderLocks(folder)
        self._server: ServerLocks | None = None
        self._session: int | None = None
        self._has_turn = False
        try:
            if server is not None and server.dialect.name == "postgresql":
                self._server = ServerLocks(server, name)
            self._wait_for_turn(folder)
        except BaseException:
            self.release()
            raise

    def end_turn(self) -> None:
        """Let the next search open the study."""
        self._has_turn = False
        self._here.end_turn()
        if self._server is not None:
            self._server.end_turn()

    @property
    def session(self) -> int:
        """Number of this search's session.

        Raises:
            RuntimeError: it has none yet.
        """
        if self._session is None:
            raise RuntimeError("a search has a session before it works")
        return self._session

    @contextlib.contextmanager
    def tidying(self) -> Iterator[bool]:
        """Have the turn, if no other search has it: yields whether this one has."""
        had_it = self._has_turn
        try:
            yield self._try_turn()
        finally:
            if self._has_turn and not had_it:
                self.end_turn()

    def enter(self, session: int) -> None:
        """From now on the other searches see this one as alive."""
        self._session = session
        self._here.enter(session)
        if self._server is not None:
            self._server.enter(session)

    def others(self) -> frozenset[int]:
        """Return the sessions of the other searches that are alive."""
        alive = self._here.alive() if self._server is None else self._server.alive()
        return alive - {self._session}

    def others_elsewhere(self) -> frozenset[int]:
        """Return the sessions of those that search the study from another folder."""
        return self.others() - self._here.alive()

    def keep(self) -> None:
        """Take the locks on the server again where the server has restarted and forgotten them.

        Raises:
            StudyError: The folder of the study is gone. SQLite would go on writing to a file that has no name any more.
        """
        self._here.require()
        if self._server is not None:
            self._server.keep()

    def release(self) -> None:
        """Release every lock: this search has ended."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._here.close()

    def _try_turn(self) -> bool:
        if not self._has_turn and self._here.try_turn():
            self._has_turn = self._server is None or self._server.try_turn()
            if not self._has_turn:
                self._here.end_turn()
        return self._has_turn

    def _wait_for_turn(self, folder: Path) -> None:
        until = time.monotonic() + _TURN_S
        while not self._try_turn():
            if time.monotonic() > until:
                raise StudyError(f"study {folder} is being opened by another search", f"wait until it has begun, or {_ELSEWHERE}")
            time.sleep(_LOOK_S)


class FolderLocks:
    """The locks in one study folder. The kernel keeps them."""

    def __init__(self, folder: Path) -> None:
        # Python opens files as non-inheritable, so a worker process does not keep the lock of a killed driver.
        self._shared = _shared_file(folder)
        self._folder = folder / SEARCHES
        self._folder.mkdir(exist_ok=True)
        self._turn: IO[str] | None = None
        self._own: IO[str] | None = None
        self._path = self._folder

    def try_turn(self) -> bool:
        """Take the turn if it is free."""
        self._turn = _locked(self._folder / _TURN)
        return self._turn is not None

    def end_turn(self) -> None:
        """Give the turn back."""
        if self._turn is not None:
            self._turn.close()
            self._turn = None

    def enter(self, session: int) -> None:
        """Hold the lock of `session`. It has its name only once it is locked, so no other search ever sees it free."""
        if self._own is not None:
            self._own.close()
        draft, self._path = self._folder / f"{session}.draft", self._folder / str(session)
        self._own = _locked(draft)
        draft.rename(self._path)

    def require(self) -> None:
        """Raise a `StudyError` if the lock of this search is gone: somebody has removed the study, or moved it."""
        if self._own is not None and not self._path.exists():
            folder = self._folder.parent
            raise StudyError(
                f"study {folder} must stay where it is while it is searched, but is gone",
                "if it was moved, move it back; else what was found is lost: search again",
            )

    def alive(self) -> frozenset[int]:
        """Return the sessions whose locks are held."""
        try:
            sessions = [path for path in self._folder.iterdir() if path.name.isdigit()]
        except FileNotFoundError:  # someone has removed the study: the next write tells
            return frozenset()
        return frozenset(int(path.name) for path in sessions if _is_held(path))

    def close(self) -> None:
        """Release every lock."""
        self.end_turn()
        if self._own is not None:
            self._path.unlink(missing_ok=True)
            self._own.close()
        self._shared.close()


def _shared_file(folder: Path) -> IO[str]:
    file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise _held_alone(folder, file) from None
    return file


def _held_alone(folder: Path, file: IO[str]) -> StudyError:
    with file:
        try:
            holder = json.load(file)
        except ValueError:  # the other process has the lock, but has not written its name yet
            return StudyError(f"study {folder} is being searched by an earlier autocut", f"wait until it is done, or {_ELSEWHERE}")
    return StudyError(
        f"study {folder} is being searched by an earlier autocut, process {holder['pid']} on {holder['host']}",
        f"wait until it is done, stop it with: kill -INT {holder['pid']}, or {_ELSEWHERE}",
    )


def _locked(path: Path) -> IO[str] | None:
    """Return the locked file at `path`; None where another process holds its lock."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock. The file of a dead search goes."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two searches may look at the same moment
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # another search has just removed it
        return False
    return False
