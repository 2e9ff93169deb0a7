"""A database server that goes away and comes back while a search runs."""

import inspect
import re

import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage

from autocut.errors import StudyError
from autocut.study import patience
from autocut.study.patience import PatientStorage, repeated, wait_for_server


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(patience, "_PAUSE_S", 0.0)


def cut_off(statement="INSERT", lost=True):
    """The error of a connection that was lost in a statement; without one: at the commit."""
    return sqlalchemy.exc.OperationalError(statement, {}, Exception("server closed the connection"), connection_invalidated=lost)


def as_told_by_optuna(error):
    """As Optuna raises it."""
    told = StorageInternalError("An exception is raised during the commit.")
    told.__cause__ = error
    return told


def as_told_by_the_study(error):
    """As a study raises it."""
    told = StudyError("study has a database that does not answer")
    told.__cause__ = as_told_by_optuna(error)
    return told


def failing(*errors):
    """A transaction that fails like this, and then succeeds."""
    waiting = list(errors)

    @repeated
    def transaction():
        if waiting:
            raise waiting.pop(0)
        return "stored"

    return transaction


@pytest.mark.parametrize("wrapped", [lambda error: error, as_told_by_optuna, as_told_by_the_study])
def test_a_transaction_that_was_cut_off_is_run_again(wrapped):
    """It has changed nothing."""
    assert failing(wrapped(cut_off()), wrapped(cut_off()))() == "stored"


@pytest.mark.parametrize(
    "error", [cut_off(statement=None), cut_off(lost=False), as_told_by_optuna(cut_off(statement=None)), StudyError("is full")]
)
def test_what_may_have_been_stored_is_not_run_again(error):
    """Nor what fails for another reason: a trial would be doubled, or a fault hidden."""
    with pytest.raises(type(error)):
        failing(error)()


def test_patience_ends(monkeypatch):
    """A server that does not come back ends the search."""
    monkeypatch.setattr(patience, "PATIENCE_S", -1.0)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        failing(cut_off())()


def test_a_new_connection_waits_for_the_server(monkeypatch):
    """Until it answers, or patience ends."""
    engine = sqlalchemy.create_engine("sqlite://")
    real, tries = engine.dialect.connect, []

    def connect(*arguments, **options):
        tries.append(arguments)
        if len(tries) < 4:
            raise engine.dialect.loaded_dbapi.OperationalError("connection refused")
        return real(*arguments, **options)

    monkeypatch.setattr(engine.dialect, "connect", connect)
    wait_for_server(engine)
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1
    assert len(tries) == 4

    engine.dispose()
    tries.clear()
    monkeypatch.setattr(patience, "PATIENCE_S", -1.0)
    with pytest.raises(sqlalchemy.exc.OperationalError, match="refused"):
        engine.connect()


def test_every_call_of_optuna_is_patient():
    """Also those that its cache makes. Heartbeats are not used, nor what is only for a single objective."""
    called = set(re.findall(r"self\._backend\.(\w+)", inspect.getsource(_CachedStorage)))
    methods = {name for name in called if name in vars(RDBStorage)}
    patient = {name for name in methods if hasattr(getattr(PatientStorage, name), "__wrapped__")}

    assert {"_create_new_trial", "set_trial_state_values", "set_trial_user_attr"} <= patient
    assert {name for name in methods - patient if "heartbeat" not in name} == {"_get_best_trial_id", "_get_stale_trial_ids"}
