"""The locks of searches on a PostgreSQL server. A lock belongs to a connection, and ends with it.

Each lock has two numbers: one of the study, and the session of the search that holds it, or 0 for the turn. A server that restarts
forgets all of them. Each search takes its own again within seconds, and counts as alive meanwhile.
"""

from __future__ import annotations

import time
import zlib
from typing import Any

import sqlalchemy

from autocut.errors import StudyError, quoted
from autocut.study.patience import wait_for_server

_TURN = 0
_FORGOTTEN_S = 20.0
"""A search counts as alive for so long after its lock was seen last: a restarted server has forgotten it for a moment."""
_KEEPALIVE = ("SET tcp_keepalives_idle = 30", "SET tcp_keepalives_interval = 10", "SET tcp_keepalives_count = 3")
"""The server notices within a minute that a machine has lost its power. By default that takes two hours."""
_SHARE = "SELECT pg_try_advisory_lock_shared(:study)"
_TAKE = "SELECT pg_try_advisory_lock(:study, :number)"
_GIVE = "SELECT pg_advisory_unlock(:study, :number)"
_HELD = """
SELECT objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint = :study AND objid::bigint <> 0
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class ServerLocks:
    """The locks of one search of the study `name` on the server of `engine`.

    Raises:
        StudyError: An earlier autocut searches this study, and wants it for itself.
    """

    def __init__(self, engine: sqlalchemy.Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        checksum = zlib.crc32(f"autocut:{name}".encode())
        self._whole, self._study = checksum, checksum >> 1  # two numbers must each fit into 31 bits
        self._session: int | None = None
        self._seen: dict[int, float] = {}
        self._connection = self._connected()
        wait_for_server(engine)

    def try_turn(self) -> bool:
        """Take the turn if it is free."""
        return bool(self._ask(_TAKE, number=_TURN)[0])

    def end_turn(self) -> None:
        """Give the turn back."""
        self._ask(_GIVE, number=_TURN)

    def enter(self, session: int) -> None:
        """Hold the lock of `session`."""
        self._session = session
        self._ask(_TAKE, number=session)

    def alive(self) -> frozenset[int]:
        """Return the sessions whose locks are held, or were a moment ago."""
        now = time.monotonic()
        self._seen |= dict.fromkeys(self._ask(_HELD), now)
        self._seen = {session: seen for session, seen in self._seen.items() if now - seen < _FORGOTTEN_S}
        return frozenset(self._seen)

    def keep(self) -> None:
        """Take the locks again where the server has restarted."""
        self._ask("SELECT 1")

    def close(self) -> None:
        """Release every lock."""
        self._connection.close()

    def _ask(self, question: str, **numbers: int) -> list[Any]:
        """Return the first column of the answer. After a restart of the server, take the locks again and ask once more."""
        try:
            return self._answer(question, numbers)
        except sqlalchemy.exc.DBAPIError:
            self._connection.close()
            self._connection = self._connected()
            if self._session is not None:
                self._answer(_TAKE, {"number": self._session})
            return self._answer(question, numbers)

    def _answer(self, question: str, numbers: dict[str, int]) -> list[Any]:
        wanted = {"study": self._study, **numbers} if ":study" in question else numbers
        answer = list(self._connection.scalars(sqlalchemy.text(question), wanted))
        # This ends the transaction, not the locks: an advisory lock belongs to the connection.
        self._connection.commit()
        return answer

    def _connected(self) -> sqlalchemy.Connection:
        connection = self._engine.connect()
        for setting in _KEEPALIVE:
            connection.execute(sqlalchemy.text(setting))
        if not connection.scalar(sqlalchemy.text(_SHARE), {"study": self._whole}):
            connection.close()
            raise StudyError(
                f"study {quoted(self._name)} is being searched by an earlier autocut on this database",
                "wait until it is done, or use another database: --storage URL",
            )
        connection.commit()
        connection.detach()
        return connection
