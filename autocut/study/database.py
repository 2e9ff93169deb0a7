"""The database of a study: how to open it, and what its errors mean for the user."""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from autocut.errors import MissingDependencyError, StudyError, quoted
from autocut.node import network_disk
from autocut.study.patience import PatientStorage, wait_for_server

DATABASE_FILE = "study.db"
_BUSY_TIMEOUT_S = 60.0
_SECRET_NAME = re.compile(r"pass(word|wd|phrase)?$|pwd|secret|token|credential|api_?key", re.IGNORECASE)
_SECRET_PART = re.compile(r"(password|passwd|pwd|secret|token)\s*=", re.IGNORECASE)
_DAMAGE = ("malformed", "not a database", "corrupt", "could not decode")
_NO_ADDRESS = (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, sqlalchemy.exc.SAWarning)
_MOST_CHARACTERS = 160
_OPTUNA_FILLS = ("version_info", "alembic_version")
"""Tables with one row each, which Optuna writes where it is missing."""


@contextlib.contextmanager
def open_engine(folder: Path, storage_url: str | None) -> Iterator[sqlalchemy.Engine]:
    """Open an engine for the study's database, and close it at the end. It creates nothing in the database."""
    url, options = _address(folder, storage_url)
    with _driver_errors(url), warnings.catch_warnings():
        warnings.simplefilter("error", sqlalchemy.exc.SAWarning)  # SQLite's driver ignores options that it does not know
        engine = sqlalchemy.create_engine(url, **options)
    try:
        yield engine
    finally:
        engine.dispose()


def open_optuna_storage(folder: Path, storage_url: str | None, *, create: bool = False) -> RDBStorage:
    """Open Optuna's storage in the same database. Its tables must be there, unless it may `create` them.

    Raises:
        StudyError: What Optuna needs is missing. Optuna would write it, and a damaged study would look like an empty one.
    """
    url, options = _address(folder, storage_url)
    if not create:
        _require_optuna(folder, storage_url)
    with _driver_errors(url):
        # Optuna calls str.format on the address, so braces must be doubled (seen in 5.0.0).
        address = url.replace("{", "{{").replace("}", "}}")
        if storage_url is None:
            return RDBStorage(address, engine_kwargs=options, skip_table_creation=not create)
        storage = PatientStorage(address, engine_kwargs=options, skip_table_creation=not create)
    wait_for_server(storage.engine)
    return storage


def _require_optuna(folder: Path, storage_url: str | None) -> None:
    with storage_errors(folder), open_engine(folder, storage_url) as engine, engine.connect() as connection:
        for table in _OPTUNA_FILLS:
            if connection.scalar(sqlalchemy.text(f"SELECT COUNT(*) FROM {table}")) != 1:
                raise _damaged(folder, f"table {table} must have one row")


def database_reach(folder: Path, storage_url: str | None) -> str | None:
    """Say where the study's database may not be safe: an SQLite file on a network disk; None elsewhere.

    References:
        https://www.sqlite.org/wal.html: "WAL does not work over a network filesystem".
    """
    if storage_url is not None or not (kind := network_disk(folder)):
        return None
    return (
        f"database: {folder} is on a network disk ({kind}), where SQLite may lose data if two machines use it; "
        "--out FOLDER on a disk of this machine is safe, or a server: --storage postgresql://..."
    )


def close_storage(storage: RDBStorage) -> None:
    """Close every connection, so that SQLite moves its write-ahead log into the file."""
    storage.remove_session()
    storage.engine.dispose()


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Translate errors of SQLite, the server or the file system into a `StudyError` that says what to do.

    The methods of `Study` use it themselves. Direct calls of `study.optuna` need it around them.
    """
    try:
        yield
    except (sqlalchemy.exc.DBAPIError, StorageInternalError, sqlite3.Error) as error:
        raise _to_study_error(folder, error) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise StudyError(f"study {folder} cannot be written: {error.strerror}", _disk_hint(error.errno)) from error


@contextlib.contextmanager
def reading_errors(folder: Path) -> Iterator[None]:
    """Do as `storage_errors`, and report data that autocut did not write: a damaged text, JSON, date, name or measurement.

    Only for blocks that read. In a block that writes, such an error is a bug.
    """
    try:
        with storage_errors(folder):
            yield
    # JSON, Unicode and pydantic raise subclasses of ValueError; SQLAlchemy's enumerations raise LookupError. SQLite
    # keeps bytes in a column of texts, which have other methods than texts.
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise _damaged(folder, _short(f"{type(error).__name__}: {error}".partition("\n")[0])) from error


def without_password(storage_url: str) -> str:
    """Return the address without its password, and without other secrets that a driver takes, for files and messages.

    Raises:
        sqlalchemy.exc.ArgumentError, ValueError: It is no address.
    """
    # `URL.set(password=None)` would keep the password (SQLAlchemy 2.1), so the field of the tuple is replaced.
    url = sqlalchemy.make_url(storage_url)
    secret = [name for name, value in url.query.items() if _SECRET_NAME.search(name) or _SECRET_PART.search(str(value))]
    if url.password is None and not secret:
        return storage_url
    return url._replace(password=None).difference_update_query(secret).render_as_string(hide_password=False)


def without_passwords(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, with every database address in them as `without_password` has it."""
    found = []
    for word in words:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        found.append(flag + equals + _shown(value) if "://" in value else word)
    return found


def _shown(storage_url: str) -> str:
    return without_password(storage_url) if _is_clear(storage_url) else public_address(storage_url)


def _is_clear(storage_url: str) -> bool:
    """Whether it is an address, and all of its password stands where one belongs: a bare @ in a password ends it too early."""
    try:
        url = sqlalchemy.make_url(storage_url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return False
    return url.password is None or "@" not in f"{url.host}{url.database}"


@contextlib.contextmanager
def _driver_errors(url: str) -> Iterator[None]:
    """Translate a bad address or a missing database driver."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"storage {public_address(url)} needs a database driver that is not installed", "pip install 'autocut[postgresql]'"
        ) from error
    # SQLAlchemy raises a bare ValueError for a port that is no number, and TypeError for options that a driver does not take (2.1).
    except (*_NO_ADDRESS, ValueError, TypeError) as error:
        raise StudyError(
            f"storage must be a database address, got {quoted(public_address(url))}",
            "for example --storage postgresql+psycopg://user@host/database",
        ) from error


def public_address(storage_url: str) -> str:
    """Return what may be shown of an address, whether it is one or not: no user's password, and nothing after a question mark."""
    if _is_clear(storage_url):
        return without_password(storage_url).partition("?")[0]
    before, at, rest = storage_url.rpartition("@")  # what stands before the last @ may be a password
    scheme, colon, _ = before.partition("://")
    return f"{scheme}{colon}…@{rest.partition('?')[0]}" if colon else f"{'…@' if at else ''}{rest.partition('?')[0]}"


def _address(folder: Path, storage_url: str | None) -> tuple[str, dict[str, Any]]:
    if storage_url is not None:
        # Without the ping, the first call fails after a restart of the server (seen with PostgreSQL 15).
        return storage_url, {"pool_pre_ping": True}
    # A creator takes the path, because in the address '?', '%' and '{' would have a meaning.
    return f"sqlite:///{DATABASE_FILE}", {"creator": functools.partial(_connect, (folder / DATABASE_FILE).resolve())}


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
    # WAL: the dashboard can read while the search writes. NORMAL: no fsync for each commit. A power cut may lose the last commits.
    # A killed process loses none.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _to_study_error(folder: Path, error: Exception) -> StudyError:
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    origin = getattr(cause, "orig", None) or cause
    text = _short(str(origin).partition("\n")[0])
    low = text.lower()
    if "full" in low or "no space" in low:
        return StudyError(f"study {folder} cannot be written: {text}", _disk_hint(errno.ENOSPC))
    if "readonly" in low or "read-only" in low:
        return StudyError(f"study {folder} cannot be written: {text}", _disk_hint(errno.EROFS))
    if any(words in low for words in _DAMAGE):
        return _damaged(folder, text)
    missing = ("relation" in low or "column" in low) and "does not exist" in low  # the wording of PostgreSQL
    if missing or "no such table" in low or "no such column" in low:
        return StudyError(
            f"study {folder} must have the tables that this autocut reads, got: {text}",
            "open it with the autocut version that wrote it, or search into another folder: --out FOLDER",
        )
    if "locked" in low:
        return StudyError(
            f"study {folder} is locked by another process ({text})", "stop the other process, then run the same command again"
        )
    if isinstance(origin, sqlite3.Error):
        return StudyError(f"study {folder} has a database that cannot be used: {text}", _damage_hint(folder))
    return StudyError(
        f"study {folder} has a database that does not answer: {text}",
        "is the database server running? Passwords are not stored: set PGPASSWORD",
    )


def _damaged(folder: Path, text: str) -> StudyError:
    return StudyError(f"study {folder} has a damaged database ({text})", _damage_hint(folder))


def _damage_hint(folder: Path) -> str:
    return f"restore {folder / DATABASE_FILE} from a copy, or move the folder away and search again"


def _short(text: str) -> str:
    """Return one line for a terminal: escape the raw bytes of a damaged file, and cut long lines."""
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= _MOST_CHARACTERS else shown[: _MOST_CHARACTERS - 1] + "…"


def _disk_hint(number: int | None) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "make room on the disk, then run the same command again: finished work is kept"
    return "choose a folder that you may write to: --out FOLDER"
