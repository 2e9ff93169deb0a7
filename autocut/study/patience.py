"""A database server that is restarted in the middle of a search: its clients wait for it, and do again what was cut off.

A connection that was idle is replaced by the pool, and the new one waits until the server is up. A transaction that was cut off
before its commit has changed nothing, so it is run again. One that was cut off at its commit may have been stored. It is not run
again: the search ends with an error, and the same command goes on with what is stored.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage

from autocut.errors import StudyError

PATIENCE_S = 120.0
"""A server that is away for longer ends the search."""
_PAUSE_S = 0.25

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def wait_for_server(engine: sqlalchemy.Engine) -> None:
    """Have new connections of `engine` wait while the server does not answer. It has answered before: the address is right."""

    @sqlalchemy.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_S)


def repeated(transaction: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Run a function of one transaction again where its connection was cut off before the commit."""

    @functools.wraps(transaction)
    def patient(*arguments: _Given.args, **options: _Given.kwargs) -> _Result:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return transaction(*arguments, **options)
            except (sqlalchemy.exc.DBAPIError, StorageInternalError, StudyError) as error:
                if not _was_cut_off(error) or time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_S)

    return patient


def _was_cut_off(error: BaseException) -> bool:
    """Whether the connection was lost in a statement. The error of a commit names none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, sqlalchemy.exc.DBAPIError):
        cause = cause.__cause__
    return isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated and cause.statement is not None


class PatientStorage(RDBStorage):
    """Optuna's storage, whose calls outlast a restart of the server. Each of them is one transaction (5.0.0)."""


_CALLED_BY_ITS_CACHE = ("_create_new_trial", "_get_trials", "_set_trial_param", "get_trial_id_from_study_id_trial_number")
for _name in (*sorted(BaseStorage.__abstractmethods__), *_CALLED_BY_ITS_CACHE):
    setattr(PatientStorage, _name, repeated(getattr(RDBStorage, _name)))
