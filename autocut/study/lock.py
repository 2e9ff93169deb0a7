"""The lock that allows one search for each study. The kernel releases it when the process ends, even by a kill."""

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
from autocut.study.patience import wait_for_server

LOCK_FILE = "search.lock"
_ELSEWHERE = "search into another folder: --out FOLDER"


class SearchLock:
    """The process that searches the study in `folder` holds the lock from construction to `release`.

    On a database server it also locks the study's name, because folders on two nodes may belong to one study.

    Raises:
        StudyError: Another process searches this study. The message names the process.
    """

    def __init__(self, folder: Path, name: str, server: sqlalchemy.Engine | None = None) -> None:
        self._file = _lock_file(folder)
        self._name = name
        self._server = server
        self._connection: sqlalchemy.Connection | None = None
        if server is not None and server.dialect.name == "postgresql":
            try:
                self._connection = _lock_on_server(server, name)
                wait_for_server(server)
            except StudyError:
                self.release()
                raise

    def keep(self) -> None:
        """Take the lock on the server again where the server has restarted and forgotten it.

        Raises:
            StudyError: Another process has taken it meanwhile.
        """
        if self._connection is None or self._server is None:
            return
        try:
            self._connection.execute(sqlalchemy.text("SELECT 1"))
            self._connection.rollback()
        except sqlalchemy.exc.DBAPIError:
            self._connection.close()
            self._connection = _lock_on_server(self._server, self._name)

    def release(self) -> None:
        """Release the lock, so that another process may search."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._file.close()


def _lock_file(folder: Path) -> IO[str]:
    # Python opens files as non-inheritable, so a worker process does not keep the lock of a killed driver.
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
        except ValueError:  # the other process has the lock, but has not written its name yet
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
    # This ends the transaction, not the lock: an advisory lock belongs to the connection, and ends with it.
    connection.commit()
    connection.detach()
    return connection
