"""A study that is damaged, or that autocut did not write, gives an error message with a hint, and is left alone."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import sqlite3

import pytest
import sqlalchemy

from autocut.errors import StudyError
from autocut.recipe import Recipe
from autocut.study import StageRun, open_study, storage_errors


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Folder for the study that the tests here damage a copy of."""
    return tmp_path_factory.mktemp("original") / "digits"


@pytest.fixture
def file(original, make_study, complete, tmp_path):
    """The database of a closed study with one trial. The study is made once, and copied to where `make_study` looks for it."""
    if not original.exists():
        study = make_study(original)
        complete(study, 0.5, 0.9, 0.1)
        study.close()
    return shutil.copytree(original, tmp_path / "digits") / "study.db"


@pytest.mark.parametrize("damage", [b"not a database at all, but long enough to be read as one" * 40, b""])
def test_a_file_that_is_no_study_is_refused(tmp_path, damage):
    """A damaged file gives an error message, not a traceback."""
    (tmp_path / "study.db").write_bytes(damage)

    with pytest.raises(StudyError, match=r"damaged database|without an autocut study"):
        open_study(tmp_path)


def test_a_study_damaged_in_the_middle_is_refused(make_study, complete):
    """Half of the pages are overwritten, but the header is valid."""
    study = make_study()
    for step in range(5):
        complete(study, step / 10, 0.9, 0.1)
    study.close()
    file = study.folder / "study.db"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)

    with pytest.raises(StudyError, match="damaged"):
        open_study(study.folder)
    with pytest.raises(StudyError, match="damaged"):
        make_study()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE autocut_measurement SET document = '{\"accuracy\": '",
        "UPDATE autocut_measurement SET document = '{}'",
        "UPDATE autocut_measurement SET \"values\" = '[1]'",
        "UPDATE autocut_measurement SET measured = 'yesterday'",
        "UPDATE autocut_study SET objectives = 'x'",
        "UPDATE autocut_study SET objectives = '7'",
        "UPDATE autocut_study SET space = CAST(x'ff00fe' AS TEXT)",
        "UPDATE trials SET state = 'ASLEEP'",
        "UPDATE trial_user_attributes SET value_json = CAST(x'22ff00fe22' AS TEXT)",
    ],
)
def test_content_that_autocut_never_wrote_is_reported_as_damage(make_study, file, change):
    """After a disk error or a manual edit, readers and the search get an error message with a hint."""
    with sqlite3.connect(file) as database:
        database.execute(change)
    database.close()

    with pytest.raises(StudyError, match="damaged database") as refusal:
        open_study(file.parent)
    assert "restore" in refusal.value.hint
    assert refusal.value.message.isprintable()
    with pytest.raises(StudyError, match="damaged database"):
        make_study()


_LACKS = ("DROP TABLE studies", "DELETE FROM version_info", "DELETE FROM alembic_version", "DROP TABLE trials")


@pytest.mark.parametrize("change", _LACKS)
def test_what_optuna_lacks_is_not_written_by_a_reader(file, change):
    """Optuna writes missing tables and rows at every opening, so a damaged study would look like an empty one."""
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute(change)
    database.close()
    before = file.read_bytes()

    with pytest.raises(StudyError, match=r"must have the tables|damaged database"):
        open_study(file.parent)
    assert file.read_bytes() == before


@pytest.mark.parametrize("size", [0, 1, 511])
def test_an_empty_database_stays_as_it_is(tmp_path, size):
    """SQLite writes its first page to a file that is smaller than one."""
    (tmp_path / "study.db").write_bytes(b"S" * size)

    with pytest.raises(StudyError, match="without an autocut study"):
        open_study(tmp_path)
    assert (tmp_path / "study.db").stat().st_size == size


@pytest.mark.parametrize(
    ("table", "column", "content"),
    [
        ("autocut_measurement", "values", '{"accuracy": 0.9}'),
        ("autocut_measurement", "values", '{"accuracy": "high", "usd_per_million": 1}'),
        ("autocut_measurement", "worked_s", "long"),
        ("autocut_study", "objectives", '[["accuracy", "sideways"]]'),
        ("autocut_study", "objectives", "[]"),
        ("trial_user_attributes", "value_json", '"[1, 2]"'),
        ("trial_user_attributes", "value_json", json.dumps('{"train.epochs": "many"}')),
        ("trial_user_attributes", "value_json", json.dumps('{"prune.ratio": 1' + 400 * "0" + "}")),
    ],
)
def test_json_of_a_stranger_is_reported_as_damage(file, table, column, content):
    """The columns of JSON take anything; the readers below would stumble over it much later."""
    with sqlite3.connect(file) as database:
        only = " WHERE key = 'recipe'" if table == "trial_user_attributes" else ""
        assert database.execute(f'UPDATE {table} SET "{column}" = ?{only}', [content]).rowcount == 1
    database.close()

    with pytest.raises(StudyError, match="damaged database"):
        open_study(file.parent)


@pytest.mark.parametrize(
    "change",
    [
        "trial_system_attributes SET key = CAST(key AS BLOB)",
        "autocut_stage_run SET key = x'ff00'",
        "autocut_final SET refusal = x'ff00'",
        "autocut_final SET bundle = x'ff00'",
    ],
)
def test_bytes_in_a_column_of_texts_are_reported_as_damage(make_study, complete, make_measurement, change):
    """SQLite takes a value of any type in any column."""
    study = make_study()
    number = complete(study, 0.5, 0.9, 0.1, constraints={"latency_ms": -1.0})
    complete(study, 0.6, 0.8, 0.05)
    fingerprint = Recipe({"prune.method": "structured", "prune.ratio": 0.5}).fingerprint
    study.record_stage(StageRun("scores", "accuracy", "fp32 v1", 0.1, "done", False, fingerprint, dt.datetime.now(dt.UTC)))
    values = {"accuracy": 0.9, "usd_per_million": 0.1}
    study.record_final(number, make_measurement(0.9, 1.0, "test"), values, bundle=None, bundle_sha256=None, verified=False)
    study.close()
    with sqlite3.connect(study.folder / "study.db") as database:
        assert database.execute(f"UPDATE {change}").rowcount > 0
    database.close()

    with pytest.raises(StudyError, match="damaged database"), contextlib.closing(open_study(study.folder)) as reader:
        reader.front()


@pytest.mark.parametrize(
    "facts",
    [
        {"price": "free"},
        {"price": {"instance": "x", "usd_per_hour": -1, "date": "d", "utilization": 1}},
        {"serving": {"requests_per_month": 0}},
        {"threads": "all"},
        {"machine_audit": 7},
        {"libraries": ["torch"]},
        {"task_path": 3},
    ],
)
def test_facts_of_a_stranger_are_reported_as_damage(make_study, facts):
    """Money, threads and paths are read from them."""
    study = make_study(description={"note": "anything else is only shown"})
    assert study.facts == {"note": "anything else is only shown"}
    for name, value in facts.items():
        study.optuna.set_user_attr(name, value)

    with pytest.raises(StudyError, match="damaged database"):
        _ = study.facts


def test_a_missing_table_is_reported_as_another_version(make_study):
    """The database is not damaged: another autocut version made it."""
    study = make_study()
    study.close()
    with sqlite3.connect(study.folder / "study.db") as database:
        database.execute("DROP TABLE autocut_final")
    database.close()

    with pytest.raises(StudyError, match="must have the tables that this autocut reads, got: no such table") as refusal:
        open_study(study.folder)
    assert "version that wrote it" in refusal.value.hint


def test_a_damaged_fact_is_reported_as_damage(make_study, complete):
    """Facts are read later than the other data."""
    study = make_study(description={"task": "digits"})
    with sqlite3.connect(study.folder / "study.db") as database:
        database.execute("UPDATE study_user_attributes SET value_json = '{'")
    database.close()

    with pytest.raises(StudyError, match="damaged database"):
        _ = study.facts


@pytest.mark.parametrize(
    ("error", "hint"), [(sqlite3.OperationalError("disk I/O error"), "restore"), (OSError("connection refused"), "PGPASSWORD")]
)
def test_only_a_server_is_asked_to_run(tmp_path, error, hint):
    """A file needs no password."""
    with pytest.raises(StudyError) as refusal, storage_errors(tmp_path):
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, error)
    assert hint in refusal.value.hint


def test_raw_bytes_of_a_damaged_file_are_not_sent_to_the_terminal(tmp_path):
    """Damaged bytes may contain escape sequences and be long."""
    noise = "Could not decode to UTF-8 column 'x' with text '\x1b[2J" + "\x00" * 500
    with pytest.raises(StudyError, match="damaged") as refusal, storage_errors(tmp_path):
        raise sqlite3.OperationalError(noise)

    assert refusal.value.message.isprintable()
    assert len(refusal.value.message) < 300


def test_a_database_of_somebody_else_is_refused_and_left_alone(tmp_path):
    """Opening must not add tables to the file of another program."""
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("CREATE TABLE songs (title TEXT)")
    database.close()

    with pytest.raises(StudyError, match="without an autocut study"):
        open_study(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    database.close()


def test_another_schema_version_is_refused(make_study):
    """An older autocut must not misread a newer study."""
    study = make_study()
    study.close()
    with sqlite3.connect(study.folder / "study.db") as database:
        database.execute("UPDATE autocut_study SET schema_version = 99")
    database.close()

    with pytest.raises(StudyError, match="schema version 99, this autocut reads version 1") as refusal:
        open_study(study.folder)
    assert "upgrade" in refusal.value.hint
