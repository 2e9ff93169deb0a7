"""The database of a study may be a server: its address is remembered, and its password is never shown."""

from __future__ import annotations

import json

import pytest

from autocut.errors import StudyError
from autocut.study import database, open_study, public_address, stored_facts, without_passwords


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


@pytest.mark.parametrize(
    "address", ["postgresql://me:ge@heim@h/d", "postgresql://me:ge@/heim@h/d", "sqlite+x://:geheim@/geheim@/d"]
)
def test_a_password_with_a_bare_at_sign_is_not_shown(address):
    """The address ends it at the first @, and takes the rest of it for a host or a database."""
    assert "heim" not in public_address(address)
    assert "heim" not in without_passwords([f"--storage={address}"])[0]


def test_a_path_with_an_at_sign_is_shown():
    """Where there is no password, none can be cut in two."""
    assert public_address("sqlite:////home/me@work/study.db") == "sqlite:////home/me@work/study.db"


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
