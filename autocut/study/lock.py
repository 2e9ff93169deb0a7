"""One search a study: a lock that the kernel releases when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import zlib
from pathlib import Path
from typing import IO

import sqlalchemy

from autocut.errors import StudyError

LOCK_FILE = "search.lock"
_ELSEWHERE = "search into another folder: --out FOLDER"


class SearchLock:
    """Held from construction to `release` by the process that searches the study in `folder`.

    On a database server the name is locked there too, because two folders of two nodes may name one study.

    Raises:
        StudyError: another process searches this study; the message says which.
    """

    def __init__(self, folder: Path, name: str, server: sqlalchemy.Engine | None = None) -> None:
        self._file = _lock_file(folder)
        self._connection: sqlalchemy.Connection | None = None
        if server is not None and server.dialect.name == "postgresql":
            try:
                self._connection = _lock_on_server(server, name)
            except StudyError:
                self.release()
                raise

    def release(self) -> None:
        """Let another process search."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._file.close()


def _lock_file(folder: Path) -> IO[str]:
    # Python opens files non-inheritable: a worker process does not keep the lock of a driver that was killed.
    file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise _held(folder, file) from None
    file.seek(0)
    file.truncate()
    json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
    file.flush()
    return file


def _held(folder: Path, file: IO[str]) -> StudyError:
    with file:
        try:
            holder = json.load(file)
        except ValueError:  # the holder is between taking the lock and writing its name
            return StudyError(f"study {folder} is being searched by another process", f"wait until it is done, or {_ELSEWHERE}")
    return StudyError(
        f"study {folder} is being searched by process {holder['pid']} on {holder['host']}",
        f"wait until it is done, stop it with: kill -INT {holder['pid']}, or {_ELSEWHERE}",
    )


def _lock_on_server(server: sqlalchemy.Engine, name: str) -> sqlalchemy.Connection:
    connection = server.connect()
    key = zlib.crc32(f"autocut:{name}".encode())
    if not connection.execute(sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar():
        connection.close()
        raise StudyError(
            f"study {name!r} is being searched by another process on this database",
            "wait until it is done, or use another database: --storage URL",
        )
    # Ends the transaction, not the lock: an advisory lock belongs to the connection, and the server frees it with that.
    connection.commit()
    connection.detach()
    return connection
