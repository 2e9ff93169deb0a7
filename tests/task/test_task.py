"""The task, and loading one from a file."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import autocut
from autocut.errors import TaskError, UnknownNameError
from autocut.task.batches import batch_length
from autocut.task.finalization_key import issue_finalization_key
from autocut.task.loading import load_task
from autocut.task.splits import LockedSplitError
from autocut.task.task import Task, seeded

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


def data(count=40, seed=0):
    """Examples of four numbers and three classes."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :3].argmax(1))


def make(**changes):
    """A small task."""
    return Task(**{"name": "tiny", "model": lambda: nn.Linear(4, 3), "train": data(), "test": data(10, 1), **changes})


def write(folder, source=SOURCE, name="task.py"):
    """Write a task file."""
    file = folder / name
    file.write_text(textwrap.dedent(source))
    return file


def test_missing_validation_is_split_off_train():
    """Never off test, the same examples each time, and no example twice."""
    first, second = make(), make()
    train = {tuple(x.tolist()) for x, _ in first.train_data}
    validation = {tuple(x.tolist()) for x, _ in first.validation_data}

    assert (len(train), len(validation)) == (32, 8)
    assert train | validation == {tuple(x.tolist()) for x, _ in data()}
    assert (
        validation
        == {tuple(x.tolist()) for x, _ in second.validation_data}
        != {tuple(x.tolist()) for x, _ in make(seed=1).validation_data}
    )


def test_a_validation_split_of_ones_own_is_taken_as_it_is():
    """Then train keeps all of its examples."""
    task = make(validation=data(7, 2))

    assert (len(task.train_data), len(task.validation_data)) == (40, 7)


def test_a_dataset_function_runs_once_and_only_when_needed():
    """Loading a task for its name must not read gigabytes."""
    calls = []

    def train():
        calls.append(1)
        return data()

    task = make(train=train)
    assert not calls
    assert task.train_data is task.train_data
    assert task.validation_data is not None
    assert calls == [1]


@pytest.mark.parametrize(
    "read", [lambda task: task.test[0], lambda task: task.loader(task.test, 4), lambda task: list(task.locked_test)]
)
def test_the_test_split_cannot_be_read_before_finalization(read):
    """Not through the field, not through a loader, not after the task was copied."""
    for task in (make(), dataclasses.replace(make(), epochs=3)):
        with pytest.raises(LockedSplitError):
            read(task)
        assert len(task.locked_test.open(issue_finalization_key("a test"))) == 10


def test_models_are_built_from_the_seed_in_eval_mode():
    """Two workers build the same one, and the caller's random state stays as it was."""
    state = torch.get_rng_state()
    first, second, other = make().build_model(), make().build_model(), make().build_model(seed=1)

    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)


def test_weights_that_do_not_depend_on_the_seed_are_trained():
    """The default rule; the user's own setting has priority."""
    trained = nn.Linear(4, 3).state_dict()

    def load():
        model = nn.Linear(4, 3)
        model.load_state_dict(trained)
        return model

    assert make(model=load).is_pretrained
    assert not make().is_pretrained
    assert not make(model=load, pretrained=False).is_pretrained


def test_a_model_that_seeds_torch_itself_must_say_whether_it_is_trained():
    """Its weights would look as if they were loaded."""

    def build():
        torch.manual_seed(0)
        return nn.Linear(4, 3)

    with pytest.raises(TaskError, match=r"task\.pretrained must be True or False"):
        _ = make(model=build).is_pretrained


def test_a_model_that_does_not_build_is_an_error_of_the_task():
    """No traceback: it is not a bug of autocut."""
    with pytest.raises(TaskError, match=r"got ZeroDivisionError"):
        make(model=lambda: 1 / 0).build_model()
    with pytest.raises(TaskError, match=r"must return a torch\.nn\.Module, got int"):
        make(model=lambda: 1).build_model()
    with pytest.raises(TaskError, match="got the uninitialized weight") as caught:
        make(model=lambda: nn.LazyLinear(3)).build_model()
    assert caught.value.hint == "run one batch through the model inside model()"


def test_loss_and_metric_of_ones_own_replace_those_of_the_kind():
    """A metric gives a number per example; a summary may turn them into something that is no mean."""

    def margin(outputs, targets):
        return outputs.amax(1) - outputs.amin(1)

    kind = make(metric=margin, loss=lambda outputs, targets: outputs.sum()).metric_kind
    outputs = torch.tensor([[1.0, 3.0], [2.0, 8.0]])

    assert (kind.name, kind.is_binary) == ("margin", False)
    assert kind.loss(outputs, None) == 14
    assert kind.summarize(kind.scores(outputs, None).numpy(), np.zeros(2)) == 4.0
    assert (
        make(metric=margin, summarize=lambda scores, targets: float(scores.max())).metric_kind.summarize(np.array([1, 6]), None)
        == 6.0
    )


def test_an_unknown_kind_is_an_error_with_the_nearest_name():
    """As every unknown name."""
    with pytest.raises(UnknownNameError) as caught:
        _ = make(kind="clasification").metric_kind
    assert "'classification'" in caught.value.hint


def test_the_default_optimizer_is_adamw():
    """And the task's own is used where there is one."""
    parameters = list(nn.Linear(2, 2).parameters())

    assert make().build_optimizer(parameters).defaults["lr"] == 1e-3
    assert isinstance(make(optimizer=lambda given: torch.optim.SGD(given, lr=0.1)).build_optimizer(parameters), torch.optim.SGD)


@pytest.mark.parametrize(
    "change", [{"train": data(seed=5)}, {"model": lambda: nn.Linear(4, 3, bias=False)}, {"seed": 2}, {"kind": "regression"}]
)
def test_the_fingerprint_changes_with_data_model_seed_and_kind(change):
    """Otherwise a stage key would find the models of another task."""
    assert make(**change).fingerprint != make().fingerprint == make().fingerprint


def test_seeding_for_a_while_leaves_all_random_states_alone():
    """A task must not change what runs around it."""
    draws = []
    for _ in range(2):
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        if draws:
            with seeded(9):
                random.random(), np.random.rand(), torch.rand(1)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))

    assert draws[0] == draws[1]


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


def test_a_teacher_of_ones_own_has_a_hash_of_its_weights():
    """A model distilled from one teacher must not be reused under another."""

    def hash_of(bias):
        return make(teacher=lambda: nn.Linear(4, 3, bias=bias)).teacher_hash

    assert make().teacher_hash is None
    assert hash_of(True) == hash_of(True) != hash_of(False)


def test_data_that_cannot_be_read_is_an_error_that_names_the_split():
    """A worker or a search may ask for the fingerprint first. It gets no traceback of the user's dataset."""
    with pytest.raises(TaskError, match=r"task\.validation must give batches, got TypeError"):
        _ = make(validation=[(torch.zeros(4), object())]).fingerprint


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
    with pytest.raises(TaskError, match=WRONG_FILES[source]):
        load_task(file)
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


def test_batches_of_a_task_can_be_chosen_and_shuffled():
    """Curricula choose indices; epochs bring their seeds."""
    task = make()
    chosen = list(task.loader(task.train_data, 4, indices=np.array([5, 3, 1])))

    assert [batch_length(inputs) for inputs, _ in chosen] == [3]
    assert len(task.loader(task.train_data, 5, shuffle=True, seed=1)) == 7
