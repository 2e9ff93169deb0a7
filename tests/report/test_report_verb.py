"""`autocut report`: the file that it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil

import pytest

from autocut import cli


@pytest.fixture
def study(filled, tmp_path):
    """Folder of a copy of the filled study."""
    return shutil.copytree(filled, tmp_path / "digits")


def test_the_file_is_written_into_the_study_and_named(study, capsys):
    """The path is data: a script can take it."""
    assert cli.main(["report", str(study)]) == 0
    assert capsys.readouterr().out.strip() == str(study / "report.html")
    assert (study / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_file_goes_where_the_user_wants_it(study, tmp_path, capsys):
    """Nothing but the page is left in its folder."""
    to = tmp_path / "pages" / "digits.html"

    assert cli.main(["report", str(study), "--to", str(to), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(to)
    assert document["bytes"] == to.stat().st_size
    assert [path.name for path in to.parent.iterdir()] == ["digits.html"]


@pytest.mark.parametrize(("name", "message"), [("task.py", "must name an HTML file"), ("folder.html", "must be a file")])
def test_a_target_that_is_no_page_is_refused(study, tmp_path, capsys, name, message):
    """A mistyped target must not overwrite a program."""
    (tmp_path / "folder.html").mkdir()

    assert cli.main(["report", str(study), "--to", str(tmp_path / name)]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "hint: --to " in shown


def test_a_folder_that_cannot_be_written_is_told(study, tmp_path, capsys):
    """No traceback for a full disk or a file in the way."""
    (tmp_path / "file").write_text("")

    assert cli.main(["report", str(study), "--to", str(tmp_path / "file" / "page.html")]) == 2
    assert "could not be written" in capsys.readouterr().err


def test_open_shows_the_file_in_the_browser(study, monkeypatch):
    """The address is that of the file."""
    shown = []
    monkeypatch.setattr("webbrowser.open", lambda address: shown.append(address) or True)

    assert cli.main(["report", str(study), "--open"]) == 0
    assert shown == [(study / "report.html").resolve().as_uri()]


def test_the_page_says_which_knob_bought_what(study, capsys):
    """From what is measured already; where something is missing, with the command that measures it."""
    assert cli.main(["report", str(study)]) == 0
    page = (study / "report.html").read_text()
    section = page[page.index("Which knob bought what") :].partition("</section>")[0]

    assert "compared with the untouched model, as one process: " in section
    assert "<td>all together</td>" in section or section.count("<tr>") == 3
    assert ("autocut explain" in section) == ("Not every step was measured" in section)
