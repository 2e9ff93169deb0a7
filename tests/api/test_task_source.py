"""Which file a task comes from: worker processes load it from there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from autocut import Task
from autocut.api.task_source import task_file
from autocut.errors import InputError, TaskError
from autocut.task.loading import load_task


@pytest.fixture
def module(monkeypatch):
    """Put names into a module, as if `file` had been imported under a name."""

    def put(name, file, **names):
        made = ModuleType(name)
        vars(made).update(names)
        if file is not None:
            made.__file__ = str(file)
        monkeypatch.setitem(sys.modules, name, made)

    return put


def make_task():
    """A task that is never run."""
    return Task(name="mine", model=lambda: nn.Linear(1, 1), train=[], test=[])


def test_a_path_and_no_task_stay_what_they_are():
    """The command line says what is wrong with a path."""
    assert task_file("somewhere/task.py") == Path("somewhere/task.py")
    assert task_file(None) is None


def test_a_loaded_task_knows_its_file(small_task_file):
    """`load_task` wrote it down."""
    assert task_file(load_task(small_task_file)) == small_task_file.resolve()


@pytest.mark.parametrize("name", ["my_tasks", "__main__"])
def test_a_task_of_an_imported_file_or_of_a_script_is_found(module, small_task_file, name):
    """Its module says which file it is."""
    task = make_task()
    module(name, small_task_file, task=task)

    assert task_file(task) == small_task_file


def test_a_task_must_have_the_name_that_workers_look_for(module, small_task_file):
    """The hint is the line to add."""
    mine = make_task()
    module("my_tasks", small_task_file, mine=mine)

    with pytest.raises(TaskError) as error:
        task_file(mine)
    assert error.value.hint == "task = mine"


def test_a_task_of_a_notebook_is_refused(module, small_task_file):
    """No worker could load a cell; the hint says how to write it into a file."""
    task = make_task()
    module("__main__", None, task=task)
    with pytest.raises(TaskError, match="got a task of a notebook") as error:
        task_file(task)
    assert "%%writefile task.py" in error.value.hint
    module("__main__", small_task_file, task=task, get_ipython=print)
    with pytest.raises(TaskError, match="got a task of a notebook"):
        task_file(task)


def test_a_task_of_a_function_is_refused():
    """A worker cannot call the function that made it."""
    with pytest.raises(TaskError, match="task 'mine' that is in no module"):
        task_file(make_task())


def test_what_is_no_task_is_refused():
    """A model, say."""
    with pytest.raises(InputError, match="got Linear"):
        task_file(nn.Linear(1, 1))


def test_a_script_that_searches_while_it_is_loaded_is_told_about_the_guard(tmp_path):
    """Each worker would start another search."""
    script = tmp_path / "script.py"
    script.write_text("import autocut\n\nautocut.search('other.py', budget='5m')\n")

    with pytest.raises(TaskError, match=r"got a call of autocut \(script.py, line 3\)") as error:
        load_task(script)
    assert error.value.hint == 'put the call below `if __name__ == "__main__":`'
