"""What the verbs really print, against the schemas that are published."""

from __future__ import annotations

import json
import shutil
import socketserver
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from autocut import cli
from autocut.errors import UnknownNameError, in_parts
from autocut.schemas import DOCUMENTS, record, schema


@pytest.fixture
def study(finished_study, tmp_path, monkeypatch):
    """The current folder has a finished study: studies/digits."""
    shutil.copytree(finished_study, tmp_path / "studies/digits")
    monkeypatch.chdir(tmp_path)
    return Path("studies/digits")


@pytest.fixture
def printed(capsys):
    """Run a command line; return its exit code and the one document on stdout, which must fit its schema."""

    def run(words, name, code=0):
        assert cli.main(words.split()) == code
        document = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, schema(name))
        return document

    return run


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("front studies/digits", "front"),
        ("front studies/digits --all", "front"),
        ("select studies/digits --max-accuracy-drop 5%", "select"),
        ("ledger studies/digits", "ledger"),
        ("export studies/digits --trial 7 --to out", "export"),
        ("verify studies/digits/bundles/trial-0007", "verify"),
        ("remeasure studies/digits --threads 2", "remeasure"),
        ("remeasure studies/digits/bundles/trial-0007", "remeasure"),
        ("compare studies/digits/bundles/trial-0007 studies/digits/bundles/trial-0007", "compare"),
        ("compare studies/digits studies/digits", "compare"),
    ],
)
def test_a_verb_prints_what_its_schema_says(study, printed, words, name):
    """A program that reads the schema can read the document."""
    document = printed(f"{words} --json", name)

    assert document["schema_version"] == 1


def test_a_search_prints_its_front_and_its_folder(study, printed, monkeypatch):
    """The folder has a name that the task gives; a program must not guess it."""
    monkeypatch.setattr("autocut.commands.search._run", lambda config, console, started: (replace(config, out=study), 0))

    document = printed("search --budget 5m --json", "search")

    assert document["folder"] == "studies/digits"
    assert [point["trial"] for point in document["points"]] == [0, 7]


def test_a_dashboard_prints_its_address(study, printed, monkeypatch):
    """As soon as it answers."""
    monkeypatch.setattr(socketserver.BaseServer, "serve_forever", lambda self: None)

    assert printed("dashboard studies/digits --port 0 --json", "dashboard")["address"].startswith("http://127.0.0.1:")


def test_methods_and_a_sound_configuration_fit_their_schemas(printed, small_task_file, monkeypatch):
    """They need no study."""
    monkeypatch.chdir(small_task_file.parent)

    assert printed("methods --json", "methods")["methods"]
    assert printed("search task.py --budget 5m --dry-run --json", "dry-run")["ok"]
    assert printed("check task.py --json", "check") == {
        "schema_version": 1, "task": "task.py", "ok": True, "faults": [], "notes": [],
    }  # fmt: skip


def test_faults_stand_in_the_verbs_own_document(printed, tmp_path, monkeypatch):
    """The exit code is 2, and there is one document, not a second one for the error."""
    monkeypatch.chdir(tmp_path)
    Path("task.py").write_text("task = 1\n")

    for words, name in (("check task.py", "check"), ("search task.py --budget 5m --dry-run", "dry-run")):
        document = printed(f"{words} --json", name, code=2)
        assert (document["ok"], document["faults"][0]["hint"]) == (False, "task = autocut.Task(...)")


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        ("front nowhere --json", "StudyError", 2),
        ("front studies/digits --json --csv", "InputError", 2),
        ("frnt --json", "InputError", 2),
        ("front studies/digits --jsn --json", "InputError", 2),
        ("select studies/digits --max-size 1B --json", "NoResultError", 1),
    ],
)
def test_an_error_is_one_document_too(study, printed, words, kind, code):
    """Whatever goes wrong, stdout can be parsed, and the error says its exit code."""
    error = printed(words, "error", code)["error"]

    assert (error["kind"], error["exit_code"]) == (kind, code)


@pytest.mark.parametrize("verb", ["front", "report"])
def test_a_variable_asks_for_documents_too(study, printed, monkeypatch, verb):
    """Not the flag alone makes an error a document."""
    monkeypatch.setenv(f"AUTOCUT_{verb.upper()}_JSON", "1")

    printed(f"{verb} nowhere", "error", code=2)


def test_a_bug_and_ctrl_c_are_documents(study, printed, monkeypatch):
    """The traceback is on stderr; the command that resumes is the hint."""

    def failing(error):
        def fail(*_):
            raise error

        monkeypatch.setattr("autocut.commands.search._run", fail)

    failing(ZeroDivisionError())
    assert printed("search --budget 5m --json", "error", code=3)["error"]["kind"] == "Bug"
    failing(KeyboardInterrupt())
    assert printed("search --budget 5m --json", "error", code=130)["error"]["hint"] == "autocut search --budget 5m --json"


def test_every_verb_takes_json_and_publishes_its_schema():
    """A new verb comes with a document: a record and a line in `DOCUMENTS`."""
    flags = {name: {flag for param in verb.params for flag in param.opts} for name, verb in cli.cli.commands.items()}
    without = {name for name, known in flags.items() if "--json" not in known}

    assert without == {"schema"}, "its data is JSON anyway"
    assert set(flags) - without <= set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_schema_is_valid_and_describes_every_part(name, capsys):
    """`autocut schema` prints it; a reader of the schema alone learns what the parts mean."""
    assert cli.main(["schema", name]) == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)

    assert printed == schema(name)
    assert all(part.get("description") for part in (printed, *printed.get("$defs", {}).values()))


def test_an_unknown_document_is_refused():
    """With the nearest name."""
    with pytest.raises(UnknownNameError) as error:
        record("frnt")
    assert error.value.hint == "did you mean 'front'?"


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("--budget must have a unit, got '8'", ("--budget", "must have a unit", "'8'")),
        ("study x must have a measured baseline, but has none", ("study x", "must have a measured baseline", "none")),
        ("a task must import", ("a task", "must import", None)),
        ("STUDY is missing", (None, None, None)),
    ],
)
def test_a_message_is_taken_apart(message, parts):
    """A program gets subject, rule and value; another form of message gives none of them."""
    taken = in_parts(message)

    assert (taken.subject, taken.rule, taken.value) == parts
