"""The budget ledger: how long each run of the search worked, and on what.

Only worked time counts, not the hours between two runs. It is written about every second, a beat. A killed process loses less than
a beat.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy
from sqlalchemy.orm import Session as Database
from sqlalchemy.orm import sessionmaker

from autocut.study.records import ChargeRow, SessionRow, utc_now

Guard = Callable[[], AbstractContextManager[None]]
"""Returns a context that translates the errors of the database."""

CATEGORIES = ("training", "compiling", "measuring", "waiting", "finalizing", "overhead")


class Session:
    """One run of the search. Call `beat` about every second, and `charge` for each piece of work.

    Parallel workers charge more than the wall-clock time. Only `worked_s` counts against the budget.
    """

    def __init__(
        self, study: str, command: str, versions: Mapping[str, str], database: sessionmaker[Database], guard: Guard
    ) -> None:
        self.worked_s = 0.0
        self._database = database
        self._guard = guard
        self._lock = threading.Lock()
        self._charges: dict[str, float] = {}
        self._written: dict[str, float] = {}
        now = utc_now()
        row = SessionRow(
            study=study,
            command=command,
            versions=dict(versions),
            pid=os.getpid(),
            host=socket.gethostname(),
            started=now,
            last_beat=now,
            worked_s=0.0,
        )
        with guard(), database.begin() as transaction:
            transaction.add(row)
            transaction.flush()
            self.id = row.id

    def beat(self, worked_s: float) -> None:
        """Write the total worked seconds of this run, and the charges since the last beat."""
        with self._lock:
            self.worked_s = max(self.worked_s, worked_s)
            changed = {name: total for name, total in self._charges.items() if self._written.get(name) != total}
            with self._guard(), self._database.begin() as transaction:
                row = transaction.get_one(SessionRow, self.id)
                row.worked_s = self.worked_s
                row.last_beat = utc_now()
                for category, seconds in changed.items():
                    transaction.merge(ChargeRow(session=self.id, category=category, seconds=seconds))
            self._written |= changed

    def charge(self, category: str, seconds: float) -> None:
        """Add `seconds` to `category`. The next beat writes them.

        Raises:
            ValueError: `category` is not in `CATEGORIES`.
        """
        if category not in CATEGORIES:
            raise ValueError(f"category must be one of {', '.join(CATEGORIES)}, got {category!r}")
        with self._lock:
            self._charges[category] = self._charges.get(category, 0.0) + seconds

    def close(self) -> None:
        """Write what is left."""
        self.beat(self.worked_s)


def spent_s(database: Database, study: str) -> float:
    """Return the worked seconds of all runs of `study`."""
    total = database.scalar(sqlalchemy.select(sqlalchemy.func.sum(SessionRow.worked_s)).where(SessionRow.study == study))
    return float(total or 0.0)


def read_ledger(database: Database, study: str) -> dict[str, Any]:
    """Return the ledger as a plain document: total, seconds by category, and every run."""
    rows = database.scalars(sqlalchemy.select(SessionRow).where(SessionRow.study == study).order_by(SessionRow.id)).all()
    charges: dict[int, dict[str, float]] = {row.id: {} for row in rows}
    for charge in database.scalars(sqlalchemy.select(ChargeRow).where(ChargeRow.session.in_(charges))):
        charges[charge.session][charge.category] = charge.seconds
    return {
        "spent_s": sum(row.worked_s for row in rows),
        "by_category": {name: sum(one.get(name, 0.0) for one in charges.values()) for name in CATEGORIES},
        "sessions": [
            {
                "command": row.command,
                "versions": row.versions,
                "host": row.host,
                "pid": row.pid,
                "started": row.started.isoformat(timespec="seconds"),
                "last_beat": row.last_beat.isoformat(timespec="seconds"),
                "worked_s": row.worked_s,
                "by_category": charges[row.id],
            }
            for row in rows
        ],
    }
