"""Learning from an earlier study: its front first, its effects as guesses, and what is refused."""

import sqlite3
from dataclasses import replace

import pytest

from autocut import cli
from autocut.errors import InputError, StudyError
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.first_guesses import NO_GUESSES
from autocut.search.learned import learn_from
from autocut.space import load_space
from autocut.study import create_study
from autocut.study.database import DATABASE_FILE
from autocut.study.records import StudyRow
from tests.fakes import KNOWN

INT8 = Recipe({"quantize.dtype": "int8_dynamic", "compile.mode": "onnxruntime"})
CUT = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 2, "train.lr_scale": 1.0})


def test_the_front_of_the_other_study_comes_first_and_its_effects_are_guessed(finished_study):
    """Twice as fast at a quarter of the size, a point less accurate: that is what it had measured."""
    lessons = learn_from(finished_study, load_space("quick", KNOWN))
    guess = NO_GUESSES.with_family(lessons.family).lowering(INT8.lowering)

    assert lessons.jobs == ((INT8,),)
    assert (guess.speedup, guess.size_ratio) == (pytest.approx(2.0), pytest.approx(0.25))
    assert guess.kept == pytest.approx(1 - 0.01 / 0.098)
    assert "1 recipe of its front to try first, and what 1 method brought there" in lessons.line


def test_what_this_space_does_not_have_is_left_out_with_the_reason(finished_study):
    """Another space may lack a runtime."""
    space = load_space("quick", KNOWN)
    axes = tuple(replace(axis, choices=("eager",)) if axis.name == "compile.mode" else axis for axis in space.axes)
    lessons = learn_from(finished_study, replace(space, axes=axes))

    assert lessons.jobs == ()
    assert "not in this space: trial 7 (compile.mode must be one of eager, got 'onnxruntime')" in lessons.line


def test_a_search_begins_with_what_it_has_learned(start):
    """Before the baselines, in jobs of a model each, with as many epochs as fit; what cannot run here is left out."""
    machine = start(budget_s=900.0)
    state = machine.searcher.state
    too_long = Recipe({**CUT, "train.epochs": 8, "compile.mode": "onnxruntime"})
    unknown = UNTOUCHED.with_lowering("int8_static", "openvino")
    state.settings = replace(state.settings, learned=((too_long,), (unknown,)))
    machine.run(most_jobs=3)
    first, second = machine.jobs[1:3]

    assert first.why == "learned: structured 0.5 + 8 epochs lr x1"
    assert first.recipes == (too_long,)
    assert second.why.startswith("baselines")


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda _: None, StudyError, "study must be a folder that autocut search made"),
        (lambda folder: _empty(folder), InputError, "--learn-from must be a study with measured models"),
        (lambda folder: _other_version(folder), StudyError, "has schema version 999"),
    ],
)
def test_a_folder_without_a_study_to_learn_from_is_refused(tmp_path, make, error, told):
    """No study, an empty one, one of another version."""
    folder = tmp_path / "other"
    make(folder)
    with pytest.raises(error, match=told):
        learn_from(folder, load_space("quick", KNOWN))


def test_the_study_that_is_searched_is_refused_before_anything_starts(finished_study, capsys):
    """It goes on from what it has found without being told to."""
    assert cli.main(["search", "--budget", "3m", "--out", str(finished_study), "--learn-from", str(finished_study)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--learn-from must be another study than the one that is searched, got" in told
    assert "leave it out: the same command goes on" in told


def test_the_configuration_file_names_the_study_too(tmp_path, monkeypatch, capsys):
    """A folder without a study is refused before the task is looked at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "autocut.toml").write_text('[search]\nbudget = "3m"\nlearn-from = "nowhere"\n')

    assert cli.main(["search"]) == 2
    assert "study must be a folder that autocut search made, got 'nowhere'" in " ".join(capsys.readouterr().err.split())


def _empty(folder):
    study = create_study(folder, name="digits", task_fingerprint="t", space_json="{}", objectives={"accuracy": "maximize"}, seed=0)
    study.close()


def _other_version(folder):
    _empty(folder)
    with sqlite3.connect(folder / DATABASE_FILE) as connection:
        connection.execute(f"update {StudyRow.__tablename__} set schema_version = 999")
