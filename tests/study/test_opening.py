"""Creating, opening and refusing studies."""

from __future__ import annotations

import os
import subprocess

import pytest

from autocut.errors import StudyError
from autocut.recipe import Recipe
from autocut.study import Study, open_study, stored_facts


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


def test_any_folder_name_will_do(tmp_path, make_study):
    """A path is no address, so none of its characters has a meaning."""
    name = "a b%20?c={d}&e#日本"
    make_study(tmp_path / name).close()

    assert (tmp_path / name / "study.db").is_file()
    open_study(tmp_path / name).close()


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
