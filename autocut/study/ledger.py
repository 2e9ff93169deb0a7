"""The budget ledger: how long each run of the search worked, and on what.

Only worked time counts, not the hours between two runs. It is written about every second, a beat. A killed process loses less than
a beat.

The seconds of the rows are seconds of the budget: of W workers, each counts 1/W at every moment, so the rows add up to the time
spent. Earlier versions (0.1 until November 2026) wrote seconds of workers, and not all of them. Such a run is made to add up when
it is read: see `_adding_up`.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import sqlalchemy
from sqlalchemy.orm import Session as Database
from sqlalchemy.orm import sessionmaker

from autocut.errors import quoted
from autocut.study.patience import repeated
from autocut.study.records import ChargeRow, SessionRow, utc_now

Guard = Callable[[], AbstractContextManager[None]]
"""Returns a context that translates the errors of the database."""

CATEGORIES = ("starting", "training", "compiling", "measuring", "finalizing", "waiting", "idle", "overhead", "killed")
"""The rows. `autocut.search.timesheet` says what belongs to each."""
BORROWED = "borrowed"
"""No row: the seconds, weighted like the rows, in which a training also used the cores of workers that did not work."""
UNRECORDED = "unrecorded"
"""The row of what an earlier version did not write down."""
_NOT_WORKING = ("starting", "waiting", "idle")


class Session:
    """One run of the search. Call `beat` about every second."""

    def __init__(
        self, study: str, command: str, versions: Mapping[str, str], database: sessionmaker[Database], guard: Guard
    ) -> None:
        self.worked_s = 0.0
        self._database = database
        self._guard = guard
        self._lock = threading.Lock()
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

    @repeated
    def beat(self, worked_s: float, seconds: Mapping[str, float] = MappingProxyType({})) -> None:
        """Write the totals of this run: its worked seconds, and those of its rows, each a name in `CATEGORIES` or `BORROWED`.

        Raises:
            ValueError: a row has another name.
        """
        if unknown := set(seconds) - {*CATEGORIES, BORROWED}:
            raise ValueError(f"category must be one of {', '.join(CATEGORIES)}, got {quoted(', '.join(sorted(unknown)))}")
        with self._lock:
            self.worked_s = max(self.worked_s, worked_s)
            changed = {name: total for name, total in seconds.items() if self._written.get(name) != total}
            with self._guard(), self._database.begin() as transaction:
                row = transaction.get_one(SessionRow, self.id)
                row.worked_s = self.worked_s
                row.last_beat = utc_now()
                for category, total in changed.items():
                    transaction.merge(ChargeRow(session=self.id, category=category, seconds=total))
            self._written |= changed


def spent_s(database: Database, study: str, without: Collection[int] = ()) -> float:
    """Return the worked seconds of all runs of `study`, `without` those of these sessions."""
    counted = sqlalchemy.select(sqlalchemy.func.sum(SessionRow.worked_s)).where(SessionRow.study == study)
    return float(database.scalar(counted.where(SessionRow.id.not_in(list(without)))) or 0.0)


def paid_s(database: Database, study: str) -> float:
    """Return the seconds for which machines worked on `study`: where searches of one host overlap, each second counts once.

    On a cluster that is the driver's machine. A clock that was set back makes two searches overlap that did not.
    """
    rows = database.scalars(sqlalchemy.select(SessionRow).where(SessionRow.study == study)).all()
    total = 0.0
    for host in {row.host for row in rows}:
        spans = sorted((row.last_beat.timestamp() - row.worked_s, row.last_beat.timestamp()) for row in rows if row.host == host)
        paid_until = -math.inf
        for begin, end in spans:
            total += max(0.0, end - max(begin, paid_until))
            paid_until = max(paid_until, end)
    return total


def read_ledger(database: Database, study: str) -> dict[str, Any]:
    """Return the ledger as a plain document: total, seconds by category, how busy the cores were, and every run."""
    rows = database.scalars(sqlalchemy.select(SessionRow).where(SessionRow.study == study).order_by(SessionRow.id)).all()
    charges: dict[int, dict[str, float]] = {row.id: {} for row in rows}
    for charge in database.scalars(sqlalchemy.select(ChargeRow).where(ChargeRow.session.in_(charges))):
        charges[charge.session][charge.category] = charge.seconds
    borrowed_s = sum(one.pop(BORROWED, 0.0) for one in charges.values())
    by_session = {row.id: _adding_up(charges[row.id], row.worked_s) for row in rows}
    by_category = {name: sum(one.get(name, 0.0) for one in by_session.values()) for name in (*CATEGORIES, UNRECORDED)}
    return {
        "spent_s": sum(row.worked_s for row in rows),
        "by_category": by_category,
        "borrowed_s": borrowed_s,
        "cores_busy": cores_busy(by_category, borrowed_s),
        "sessions": [
            {
                "command": row.command,
                "versions": row.versions,
                "host": row.host,
                "pid": row.pid,
                "started": row.started.isoformat(timespec="seconds"),
                "last_beat": row.last_beat.isoformat(timespec="seconds"),
                "worked_s": row.worked_s,
                "by_category": by_session[row.id],
                "is_estimated": _is_of_earlier_version(charges[row.id]),
            }
            for row in rows
        ],
    }


def cores_busy(by_category: Mapping[str, float], borrowed_s: float) -> float | None:
    """Return the share of the time in which the workers' cores worked: all but starting, waiting and idle, unless it was borrowed.

    None where nothing is known: no time was spent, or an earlier version did not write down all of it.
    """
    total = sum(by_category.values())
    if total <= 0 or by_category.get(UNRECORDED, 0.0) > 0:
        return None
    free_s = sum(by_category.get(name, 0.0) for name in _NOT_WORKING)
    return 1 - max(0.0, free_s - borrowed_s) / total


def _is_of_earlier_version(seconds: Mapping[str, float]) -> bool:
    return CATEGORIES[0] not in seconds


def _adding_up(seconds: Mapping[str, float], worked_s: float) -> dict[str, float]:
    """Return the rows of a run so that they add up to `worked_s`.

    Of an earlier version's run, what is missing is `UNRECORDED`. What is too much, because its workers worked at the same time, is
    divided evenly.
    """
    if not _is_of_earlier_version(seconds):
        return dict(seconds)
    total = sum(seconds.values())
    scale = worked_s / total if total > worked_s else 1.0
    scaled = {name: spent * scale for name, spent in seconds.items()}
    return scaled | {UNRECORDED: max(0.0, worked_s - sum(scaled.values()))}
