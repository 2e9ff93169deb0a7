"""The task: splits, models, loss and metric, fingerprint."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autocut.errors import TaskError, UnknownNameError
from autocut.task.batches import batch_length
from autocut.task.finalization_key import issue_finalization_key
from autocut.task.kinds import kinds
from autocut.task.splits import LockedSplitError
from autocut.task.task import Task, seeded


def data(count=40, seed=0):
    """Examples of four numbers and three classes."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :3].argmax(1))


def make(**changes):
    """A small task."""
    return Task(**{"name": "tiny", "model": lambda: nn.Linear(4, 3), "train": data(), "test": data(10, 1), **changes})


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


@pytest.mark.parametrize("kind", kinds.names())
def test_a_kind_says_whether_its_metric_is_minus_an_error(kind):
    """The best constant answer shows its sign. Of a metric of one's own nobody knows."""
    targets = torch.arange(8).view(4, 2)[:, :1] if kind in ("regression", "rmse", "mae") else torch.arange(4).view(2, 2) % 2
    chance = kinds[kind]().chance(targets[:, 0] if kind == "classification" else targets)

    assert make(kind=kind).metric_kind.is_error == (chance < 0)
    assert not make(kind=kind, metric=lambda outputs, targets: outputs).metric_kind.is_error
    assert not make(kind=kind, summarize=lambda scores, targets: 1.0).metric_kind.is_error


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


def test_batches_of_a_task_can_be_chosen_and_shuffled():
    """Curricula choose indices; epochs bring their seeds."""
    task = make()
    chosen = list(task.loader(task.train_data, 4, indices=np.array([5, 3, 1])))

    assert [batch_length(inputs) for inputs, _ in chosen] == [3]
    assert len(task.loader(task.train_data, 5, shuffle=True, seed=1)) == 7
