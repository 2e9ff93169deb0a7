"""Students of a task reach the space of its search, and the user is told."""

from __future__ import annotations

import textwrap

import pytest

from autocut import cli
from autocut.execution.preflight import Preflight, TaskFacts
from autocut.recipe import STUDENT
from tests.conftest import SMALL_TASK
from tests.fakes import KNOWN

SEARCH = ["search", "--budget", "5m", "--workers", "1"]


@pytest.fixture
def students(searches, monkeypatch):
    """A task with two students; the configurations and spaces that reach its search."""
    facts = TaskFacts("taught", "fingerprint", 1000, epochs=15, is_pretrained=False, students=("narrow", "shallow"))
    known = {**KNOWN, STUDENT: ("none", "narrow", "shallow")}
    monkeypatch.setattr(
        "autocut.execution.preflight.preflight", lambda task, ask, meanwhile, **more: meanwhile() or Preflight(known, {}, facts)
    )
    return searches


def test_a_search_has_the_students_of_its_task(students, capsys):
    """And says what it does with them."""
    assert cli.main([*SEARCH, "--space", "quick"]) == 0
    (_, space), told = students[0], capsys.readouterr().err

    assert space.axis(STUDENT).choices == ("none", "narrow", "shallow")
    assert 15 in space.axis("train.epochs").choices
    assert "students: narrow, shallow: each is trained in the model's place" in told


def test_a_space_that_trains_nothing_leaves_students_out(students, capsys):
    """Which the user is told: they were meant to be tried."""
    assert cli.main([*SEARCH, "--space", "deploy-only"]) == 0
    assert "left out: students narrow, shallow: space deploy-only has no axis" in " ".join(capsys.readouterr().err.split())


def test_a_recipe_of_the_user_may_name_a_student(students, tmp_path):
    """It is read against the students of the task."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('"model.student" = "shallow"\n"train.epochs" = 15\n"train.lr_scale" = 1.0\n')
    assert cli.main([*SEARCH, "--space", "quick", "--try", str(recipe)]) == 0

    recipe.write_text('"model.student" = "wide"\n"train.epochs" = 15\n"train.lr_scale" = 1.0\n')
    assert cli.main([*SEARCH, "--space", "quick", "--try", str(recipe)]) == 2


def test_a_dry_run_knows_the_students(tmp_path, monkeypatch, capsys):
    """It loads the task, and reads the recipes of the user against it."""
    monkeypatch.chdir(tmp_path)
    source = textwrap.dedent(SMALL_TASK).replace("epochs=4", "epochs=4, students={'linear': Linear}")
    linear = "class Linear(nn.Linear):\n    def __init__(self):\n        super().__init__(64, 10)\n\n\n"
    (tmp_path / "task.py").write_text(source.replace("task = Task(", linear + "task = Task("))
    recipe = '"model.student" = "linear"\n"train.epochs" = 4\n"train.lr_scale" = 1.0\n'
    (tmp_path / "recipe.toml").write_text(recipe)
    (tmp_path / "untrained.toml").write_text('"model.student" = "linear"\n')
    dry = ["search", "task.py", "--budget", "5m", "--space", "quick", "--workers", "1", "--dry-run"]

    assert cli.main([*dry, "--try", "recipe.toml"]) == 0
    assert cli.main([*dry, "--try", "untrained.toml"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "model.student counts only with prune.method none and train.epochs 1 or 2 or 4, got 'linear'" in told
