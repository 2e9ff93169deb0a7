"""Creating, opening and refusing studies."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess

import pytest
import sqlalchemy

from autocut.errors import StudyError
from autocut.recipe import Recipe
from autocut.study import Study, database, open_study, public_address, storage_errors, stored_facts, without_passwords


def test_the_folder_is_laid_out_and_ignored_by_git(make_study):
    """A study folder in a repository must not be committed by mistake."""
    study = make_study()

    assert {path.name for path in study.folder.iterdir()} >= {
        "study.db",
        "stages",
        "bundles",
        "artifacts",
        ".gitignore",
        "searches",
    }
    assert (study.folder / ".gitignore").read_text() == "*\n"


def test_the_same_call_reopens_the_study(make_study, complete):
    """The same `autocut search` command continues the study."""
    first = make_study()
    complete(first, 0.5, 0.9, 0.1)
    first.close()

    assert [point.trial for point in make_study().points()] == [0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_fingerprint": "t2"}, "another version of task 'digits'"),
        (
            {"objectives": {"accuracy": "maximize", "size_bytes": "minimize"}},
            "was made for objectives maximize accuracy, minimize usd_per_million",
        ),
        ({"objectives": {"usd_per_million": "minimize", "accuracy": "maximize"}}, "was made for objectives"),
        ({"space_json": '{"axes": 1}'}, "another space"),
        ({"name": "letters"}, "was made for task 'digits', got task 'letters'"),
    ],
)
def test_a_study_made_for_something_else_is_refused(make_study, complete, changes, words):
    """One front must not mix two tasks."""
    made = make_study()
    complete(made, 0.5, 0.9, 0.1)
    made.close()

    with pytest.raises(StudyError, match=words) as refusal:
        make_study(**changes)
    assert "--out" in refusal.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"task_fingerprint": "t2"},
        {"objectives": {"accuracy": "maximize", "size_bytes": "minimize"}},
        {"space_json": '{"axes": 1}'},
        {"name": "letters"},
        {"seed": 1},
    ],
)
def test_a_study_that_a_failed_start_left_takes_over_what_is_asked(make_study, complete, changes):
    """The user has corrected the task, for example. Nothing was measured, so nothing could be mixed."""
    failed = make_study()
    failed.describe({"threads": 1})
    failed.begin_session("autocut search", {}).beat(20.0, {"starting": 20.0})
    failed.fail(None, Recipe(), {}, {}, "its data cannot be read")
    failed.close()

    study = make_study(**changes)
    assert (study.spent_s(), study.trials(), study.facts.get("threads")) == (0.0, [], None)
    asked = {"name": "digits", "task_fingerprint": "t1", "seed": 0} | changes
    assert (study.name, study.task_fingerprint, study.seed) == (asked["name"], asked["task_fingerprint"], asked["seed"])
    assert "objectives" not in changes or study.objectives == changes["objectives"]
    if "objectives" not in changes:
        complete(study, 0.5, 0.9, 0.1)
        study.close()
        assert [point.trial for point in make_study(**changes).points()] == [0]


def test_an_interrupted_start_goes_on_with_the_seconds_that_it_spent(make_study):
    """The same command counts them against its budget, as after any other end."""
    first = make_study()
    first.begin_session("autocut search", {}).beat(20.0, {"starting": 20.0})
    first.close()

    assert make_study().spent_s() == 20.0


def test_the_untouched_model_alone_is_a_result(make_study, make_measurement):
    """It took its time, and all other numbers will be compared with it."""
    first = make_study()
    first.set_reference(make_measurement(0.9, 1.0).cost)
    first.close()

    with pytest.raises(StudyError, match="another version of task"):
        make_study(task_fingerprint="t2")


def test_readers_need_no_lock(make_study, complete):
    """`autocut front` works while the search runs."""
    study = make_study()
    complete(study, 0.5, 0.9, 0.1)
    reader = open_study(study.folder)
    complete(study, 0.6, 0.8, 0.05)

    assert len(reader.points()) == 1
    reader.reload()
    assert len(reader.points()) == 2
    reader.close()


def test_an_unknown_study_is_answered_with_the_nearest_one(make_study, tmp_path):
    """The error for a typing error names the right study."""
    make_study()

    with pytest.raises(StudyError, match="must be a folder that autocut search made") as refusal:
        open_study(tmp_path / "digit")
    assert refusal.value.hint == "did you mean 'digits'?"
    assert refusal.value.exit_code == 2


def test_a_folder_without_studies_around_gets_the_search_command(tmp_path):
    """The hint says how to make a study."""
    with pytest.raises(StudyError) as refusal:
        open_study(tmp_path / "nothing" / "here")
    assert "autocut search" in refusal.value.hint


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
def test_content_that_autocut_never_wrote_is_reported_as_damage(make_study, complete, change):
    """After a disk error or a manual edit, readers and the search get an error message with a hint."""
    study = make_study()
    complete(study, 0.5, 0.9, 0.1)
    study.close()
    with sqlite3.connect(study.folder / "study.db") as database:
        database.execute(change)
    database.close()

    with pytest.raises(StudyError, match="damaged database") as refusal:
        open_study(study.folder)
    assert "restore" in refusal.value.hint
    assert refusal.value.message.isprintable()
    with pytest.raises(StudyError, match="damaged database"):
        make_study()


_LACKS = ("DROP TABLE studies", "DELETE FROM version_info", "DELETE FROM alembic_version", "DROP TABLE trials")


@pytest.mark.parametrize("change", _LACKS)
def test_what_optuna_lacks_is_not_written_by_a_reader(make_study, complete, change):
    """Optuna writes missing tables and rows at every opening, so a damaged study would look like an empty one."""
    study = make_study()
    complete(study, 0.5, 0.9, 0.1)
    study.close()
    file = study.folder / "study.db"
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute(change)
    database.close()
    before = file.read_bytes()

    with pytest.raises(StudyError, match=r"must have the tables|damaged database"):
        open_study(study.folder)
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
def test_json_of_a_stranger_is_reported_as_damage(make_study, complete, table, column, content):
    """The columns of JSON take anything; the readers below would stumble over it much later."""
    study = make_study()
    complete(study, 0.5, 0.9, 0.1)
    study.close()
    with sqlite3.connect(study.folder / "study.db") as database:
        only = " WHERE key = 'recipe'" if table == "trial_user_attributes" else ""
        assert database.execute(f'UPDATE {table} SET "{column}" = ?{only}', [content]).rowcount == 1
    database.close()

    with pytest.raises(StudyError, match="damaged database"):
        open_study(study.folder)


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


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--storage", "postgresql://me:geheim@h/d"], ["--storage", "postgresql://me@h/d"]),
        (["--storage=postgresql://me:geheim@h/d?sslmode=on"], ["--storage=postgresql://me@h/d?sslmode=on"]),
        (["postgresql://h/d?password=geheim&passfile=f"], ["postgresql://h/d?passfile=f"]),
        (["mssql://h/?odbc_connect=UID%3Dme%3BPWD%3Dgeheim"], ["mssql://h/"]),
        (["postgresql://me:geheim@h:port/d"], ["postgresql://…@h:port/d"]),
        (["postgresql://me:gehe'im@h/d"], ["postgresql://me@h/d"]),
        (["task.py", "--budget", "8h", "postgresql://me@h/d"], ["task.py", "--budget", "8h", "postgresql://me@h/d"]),
    ],
)
def test_no_word_of_a_command_shows_a_password(words, shown):
    """Commands stand in notes, bundles and on the terminal. What is no secret stays."""
    assert without_passwords(words) == shown


def test_an_address_that_is_none_shows_no_password():
    """The error quotes what was typed."""
    for address in ("me:geheim@h", "x://me:geheim@h:port/d?password=geheim", "postgresql://me:ge@heim@[::1/d", "x://h/?x=geheim"):
        assert "heim" not in public_address(address)


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


def test_any_folder_name_will_do(tmp_path, make_study):
    """A path is no address, so none of its characters has a meaning."""
    name = "a b%20?c={d}&e#日本"
    make_study(tmp_path / name).close()

    assert (tmp_path / name / "study.db").is_file()
    open_study(tmp_path / name).close()


def test_a_bad_storage_address_is_refused(tmp_path, make_study):
    """The address is checked first, and the message does not show its password."""
    with pytest.raises(StudyError, match="storage must be a database address"):
        make_study(tmp_path / "a", storage_url="nonsense")
    with pytest.raises(StudyError, match="storage must be a database address") as refusal:
        make_study(tmp_path / "b", storage_url="nosuchdb://me:secret@host/db")
    assert "secret" not in str(refusal.value)


def test_a_study_on_a_server_remembers_its_address(tmp_path, make_study, complete):
    """`autocut front` gets only the folder. A second SQLite file takes the place of the server."""
    url = f"sqlite:///{tmp_path / 'server.db'}"
    study = make_study(storage_url=url)
    complete(study, 0.5, 0.9, 0.1)

    assert json.loads((study.folder / "study.json").read_text()) == {"storage": url, "name": "digits"}
    reader = open_study(study.folder)
    assert len(reader.points()) == 1
    reader.close()


def test_a_second_folder_of_a_study_on_a_server_can_be_opened(tmp_path, make_study, complete):
    """If another node made the study, or the folder was lost, this folder needs the address too."""
    url = f"sqlite:///{tmp_path / 'server.db'}"
    first = make_study(tmp_path / "a", storage_url=url)
    complete(first, 0.5, 0.9, 0.1)
    first.close()
    make_study(tmp_path / "b", storage_url=url).close()

    reader = open_study(tmp_path / "b")
    assert [point.trial for point in reader.points()] == [0]
    reader.close()


def test_a_forgotten_storage_is_found_in_the_folder(tmp_path, make_study, complete):
    """A search that is resumed without --storage continues its study and starts no second one."""
    url = f"sqlite:///{tmp_path / 'server.db'}"
    first = make_study(storage_url=url)
    complete(first, 0.5, 0.9, 0.1)
    first.close()

    again = make_study()

    assert [point.trial for point in again.points()] == [0]
    assert not (again.folder / "study.db").exists()


def test_a_folder_of_another_task_on_a_server_is_refused(tmp_path, make_study):
    """The server may have a study of this name too, but this folder belongs to another."""
    make_study(storage_url=f"sqlite:///{tmp_path / 'server.db'}").close()

    with pytest.raises(StudyError, match="was made for task 'digits', got task 'letters'"):
        make_study(name="letters")


def test_an_unreadable_address_is_put_right_by_the_storage_flag(tmp_path, make_study):
    """The error's hint says the same."""
    url = f"sqlite:///{tmp_path / 'server.db'}"
    study = make_study(storage_url=url)
    study.close()
    (study.folder / "study.json").write_text("{")

    with pytest.raises(StudyError, match=r"unreadable study.json") as refusal:
        make_study()
    assert "--storage" in refusal.value.hint
    make_study(storage_url=url).close()
    open_study(study.folder).close()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, make_study):
    """A file in place of the folder, or a missing permission, is exit 2 with a hint."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StudyError, match="cannot be written"):
        make_study()


def test_children_do_not_keep_the_lock(make_study):
    """A worker process that outlives the driver must not block the next search."""
    study = make_study()
    with subprocess.Popen(["sleep", "30"], close_fds=False) as child:
        study.close()
        make_study()
        child.kill()


def test_the_first_facts_are_there_as_soon_as_the_study_is(make_study, tmp_path, monkeypatch):
    """A search that is killed right after must find how its fingerprint was made."""
    monkeypatch.setattr(Study, "describe", lambda self, facts: None)
    make_study(description={"data_identity": {"hashes": {}}})

    assert stored_facts(tmp_path / "digits", "digits") == {"data_identity": {"hashes": {}}}


def test_where_no_study_is_there_are_no_facts(tmp_path):
    """A new study decides for itself."""
    assert stored_facts(tmp_path / "digits", "digits") is None


def test_a_study_in_a_database_elsewhere_is_found_from_a_new_folder(make_study, tmp_path):
    """Another node begins with an empty folder."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    make_study(tmp_path / "here", storage_url=url, description={"threads": 1})

    assert stored_facts(tmp_path / "there", "digits", url) == {"threads": 1}
    assert stored_facts(tmp_path / "there", "other", url) is None


def test_sqlite_on_a_network_disk_is_told_and_a_server_is_not(tmp_path, monkeypatch):
    """Its write-ahead log needs memory that all of its users share."""
    assert database.database_reach(tmp_path, None) is None
    monkeypatch.setattr(database, "network_disk", lambda folder: "nfs4")

    assert "is on a network disk (nfs4)" in database.database_reach(tmp_path, None)
    assert database.database_reach(tmp_path, "postgresql://autocut@server/db") is None
