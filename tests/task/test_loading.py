"""Loading a task from a file, and its identity in every process."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import autocut
from autocut.errors import TaskError
from autocut.stages.model_files import restore_model, save_model
from autocut.task.loading import load_task

SOURCE = """
import torch
from torch import nn
from autocut import Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)

def split(first, last):
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))[first:last]
    return x, x[:, :3].argmax(1)

task = Task(name="tiny", model=Net, train=lambda: split(0, 200), test=lambda: split(200, 300))
"""


def write(folder, source=SOURCE, name="task.py"):
    """Write a task file."""
    file = folder / name
    file.write_text(textwrap.dedent(source))
    return file


def test_a_task_file_is_loaded_once_while_it_does_not_change(tmp_path):
    """So that its data is read once; an edit is seen."""
    file = write(tmp_path)
    task = load_task(file)
    assert task.name == "tiny"
    assert task.path == file.resolve()
    assert load_task(str(file)) is task

    write(tmp_path, SOURCE.replace('"tiny"', '"other"'))
    assert load_task(file).name == "other"


def test_a_model_of_a_task_file_can_be_pickled(tmp_path):
    """The stage cache and workers need it; the class is found under the module's registered name."""
    model = load_task(write(tmp_path)).build_model()
    assert torch.equal(pickle.loads(pickle.dumps(model)).layer.weight, model.layer.weight)


def test_the_fingerprint_is_the_same_in_every_process(tmp_path):
    """Hash seeds, addresses and the working directory may not enter it; the modules beside task.py must."""
    write(tmp_path, "SCALE = 2", "sizes.py")
    file = write(tmp_path, "import sizes\n" + SOURCE)
    mine = load_task(file).fingerprint
    code = f"from autocut.task.loading import load_task; print(load_task({str(file)!r}).fingerprint)"
    root = Path(autocut.__file__).parents[1]
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    assert other == mine

    write(tmp_path, "SCALE = 3", "sizes.py")
    assert load_task(file).fingerprint != mine


LAZY = SOURCE.replace("        super().__init__()", "        super().__init__()\n        import lazy.layers")


def test_the_fingerprint_knows_modules_that_a_function_imports(tmp_path):
    """They change results as much as those imported at the top, and an edit of them is seen by the next load."""
    (tmp_path / "lazy").mkdir()
    write(tmp_path, "from . import sizes", "lazy/__init__.py")
    write(tmp_path, "", "lazy/layers.py")
    write(tmp_path, "SCALE = 2", "lazy/sizes.py")
    file = write(tmp_path, LAZY)
    fingerprints = {load_task(file).fingerprint}
    for name in ("lazy/layers.py", "lazy/sizes.py"):
        write(tmp_path, "SCALE = 3", name)
        fingerprints.add(load_task(file).fingerprint)

    assert len(fingerprints) == 3


def test_the_fingerprint_does_not_depend_on_what_the_process_has_done(tmp_path):
    """One process has opened the test split, which imports something, and another has not."""
    write(tmp_path, "", "only_for_test.py")
    source = SOURCE.replace("test=lambda: split(200, 300)", "test=lambda: __import__('only_for_test') and split(200, 300)")
    fingerprints = []
    for opens in (False, True):
        task = load_task(write(tmp_path, source))
        vars(task).pop("fingerprint", None)
        if opens:
            assert len(task.locked_test) == 100
            assert "only_for_test" in sys.modules
        fingerprints.append(task.fingerprint)

    assert fingerprints[0] == fingerprints[1]


def test_two_tasks_with_modules_of_the_same_name_do_not_mix(tmp_path):
    """Every study has its data.py."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, f"NAME = {name!r}", "data_beside_task.py")
        source = "import data_beside_task\n" + SOURCE.replace('name="tiny"', "name=data_beside_task.NAME")
        write(tmp_path / name, source)

    assert [load_task(tmp_path / name / "task.py").name for name in ("one", "two", "one")] == ["one", "two", "one"]


def test_a_task_that_is_known_finds_its_modules_again(tmp_path, monkeypatch):
    """Functions of the task may import them later, when another task or a fork's surroundings have changed the search path."""
    file = write(tmp_path)
    write(tmp_path, "CLASSES = 3", "imported_by_a_function.py")
    task = load_task(file)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])

    assert load_task(file) is task
    assert importlib.import_module("imported_by_a_function").CLASSES == 3


def test_the_embedded_task_needs_no_file():
    """`autocut search` without a task runs it."""
    assert load_task(None).name == "digits"
    assert load_task(None) is load_task(None)


WRONG_FILES = {
    "x = 1": r"must define `task`, got none",
    "task = 5": r"`task` must be an autocut\.Task, got int",
    SOURCE.replace("task = Task", "tiny = Task"): r"name its task `task`, got tiny",
    SOURCE.replace("task = Task", "one = two = Task"): r"got 2 tasks under other names: one, two",
    "a = (1\n": r"valid Python, got SyntaxError: .*\(task\.py, line 1\)",
    "\n1 / 0": r"got ZeroDivisionError: division by zero \(task\.py, line 2\)",
    "import not_a_module_of_anyone": r"got ModuleNotFoundError: .* \(task\.py, line 1\)",
    "raise SystemExit(4)": r"got SystemExit: 4",
    "from autocut import Task\ntask = Task()": r"got TypeError: .*missing .* required",
    "import json\nimport subprocess\n\0": r"valid Python|readable Python",
}


@pytest.mark.parametrize("source", WRONG_FILES)
def test_a_task_file_that_cannot_be_used_is_an_error_of_one_line(tmp_path, source):
    """Subject, rule, value, line; never a traceback, and nothing half-imported stays behind."""
    file = tmp_path / "task.py"
    file.write_text(source)
    before = set(sys.modules)
    with pytest.raises(TaskError, match=WRONG_FILES[source]) as caught:
        load_task(file)
    assert caught.value.hint
    with pytest.raises(TaskError):
        load_task(file)
    assert not {name for name in set(sys.modules) - before if name.startswith("autocut_task_")} or "= " in source


def test_a_missing_module_comes_with_the_install_command(tmp_path):
    """Or the place where it should lie."""
    with pytest.raises(TaskError) as caught:
        load_task(write(tmp_path, "import not_a_module_of_anyone"))
    assert caught.value.hint.startswith("pip install not_a_module_of_anyone, or put")


def test_a_missing_file_is_an_error_with_the_nearest_one(tmp_path):
    """A folder too, and a file that is not Python."""
    write(tmp_path)
    for path, message in (
        (tmp_path / "tusk.py", "must exist"),
        (tmp_path, "got the folder"),
        (tmp_path / "data.csv", "Python file"),
    ):
        (tmp_path / "data.csv").touch()
        with pytest.raises(TaskError, match=message) as caught:
            load_task(path)
        assert "task.py" in caught.value.hint


def test_a_module_beside_the_task_may_not_hide_an_imported_one(tmp_path):
    """Python would silently use the imported one."""
    write(tmp_path, "X = 1", "pytest.py")
    with pytest.raises(TaskError, match="'pytest'"):
        load_task(write(tmp_path, "import pytest\n" + SOURCE))


def test_a_stored_model_is_found_by_a_task_that_was_moved(tmp_path, monkeypatch):
    """The same source in another folder has the same stages; a clone of a project goes on with its study."""
    (before := tmp_path / "before").mkdir()
    model = load_task(write(before)).build_model()
    save_model(tmp_path, model, {})
    monkeypatch.delitem(sys.modules, type(model).__module__)  # as in another process
    moved = load_task(before.rename(tmp_path / "after") / "task.py")
    found, _ = restore_model(tmp_path)

    assert type(found) is moved.model
    assert torch.equal(found.layer.weight, model.layer.weight)
