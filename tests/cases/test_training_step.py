"""`autocut check` takes two training steps on a copy, and tells what only these show."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autocut.task import training_check
from autocut.task.check import check_task, faults_of
from autocut.task.task import Task


class Table(nn.Module):
    """Classes of eight words, by a table whose gradient is sparse."""

    def __init__(self, *, sparse):
        super().__init__()
        self.table = nn.EmbeddingBag(20, 3, sparse=sparse)

    def forward(self, words):
        """(n, 8) -> (n, 3)."""
        return self.table(words)


class After(nn.Module):
    """A layer whose output goes through a function that gets the model, too."""

    def __init__(self, change):
        super().__init__()
        self.layer = nn.Linear(8, 3)
        self.change = change
        self.kept = None

    def forward(self, words):
        """(n, 8) -> (n, 3)."""
        return self.change(self, self.layer(words / 20))


def keep(model, x):
    """Carry a state from one call to the next."""
    if not model.training:
        return x
    model.kept = x if model.kept is None else model.kept.mean(0) + x
    return model.kept


class Augments(After):
    """Changes its input where it trains."""

    def forward(self, words):
        """(n, 8) -> (n, 3)."""
        return self.layer(words.add_(1) if self.training else words)


def words(seed):
    """Sixty rows of eight words."""
    rows = torch.randint(0, 20, (60, 8), generator=torch.Generator().manual_seed(seed))
    return rows, rows[:, 0] % 3


def found(**changes):
    """Messages and hints of the faults of a small task."""
    splits = {}
    for seed, name in enumerate(("train", "validation", "test")):
        rows, labels = words(seed)
        splits[name] = TensorDataset(rows if changes.get("model") is TABLE else rows.float(), labels)
    faults = faults_of(Task(**{"name": "tiny", "pretrained": False, **splits, **changes}))
    return "\n".join(f"{fault.message} | {fault.hint}" for fault in faults)


def TABLE():  # noqa: N802  (it stands for a model)
    """A table with sparse gradients."""
    return Table(sparse=True)


OTHERS = nn.Linear(2, 2)

FAULTS = {
    "which is AdamW by default, must take the model's gradients, got RuntimeError: Adam does not support sparse": {"model": TABLE},
    "must not keep tensors of an earlier forward()": {"model": lambda: After(keep)},
    "must run in train mode on 32 examples of train, got ZeroDivisionError": {
        "model": lambda: After(lambda model, x: 1 / 0 if model.training else x)
    },
    "loss must depend on the model's parameters, got a loss without a gradient": {"model": lambda: After(lambda _, x: x.detach())},
    "must have finite gradients, got NaN or infinity in that of layer.weight": {
        "model": lambda: After(lambda _, x: x + (x - x.detach()).abs().sqrt())
    },
    "must be finite in train mode, got nan": {"model": lambda: After(lambda model, x: x * float("nan") if model.training else x)},
    "must have gradients after a backward pass, got none": {
        "model": lambda: After(lambda model, x: x.detach().requires_grad_() if model.training else x),
    },
    "must have a backward pass, got RuntimeError: one of the variables": {
        "model": lambda: After(lambda _, x: (lambda y: y * y.mul_(2))(x.exp()))
    },
    "must leave its inputs as they are, got changes in place of input_0": {"model": lambda: Augments(None)},
    "optimizer must take the model's parameters, got TypeError": {
        "optimizer": lambda parameters: torch.optim.SGD(parameters, rate=1)
    },
    "optimizer must return a torch.optim.Optimizer, got NoneType": {"optimizer": lambda parameters: None},
    "got an optimizer of others": {"optimizer": lambda parameters: torch.optim.SGD(OTHERS.parameters(), lr=1)},
    "must run in train mode on 1 example of train, got ValueError: Expected more than 1 value": {
        "model": lambda: nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3)),
        "batch_size": 1,
    },
    "in a plain step(), got TypeError": {"optimizer": torch.optim.LBFGS},
}


@pytest.mark.parametrize("expected", FAULTS)
def test_a_fault_of_the_training_step_is_told(expected):
    """Each has a hint, and hides no other."""
    text = found(**{"model": lambda: After(lambda _, x: x), **FAULTS[expected]})

    assert expected in text
    assert text.count("|") == 1


@pytest.mark.parametrize(("pretrained", "trains", "told"), [(True, False, False), (True, True, True), (False, False, True)])
def test_no_training_step_is_taken_where_nothing_will_be_trained(tmp_path, pretrained, trains, told):
    """A space without training, and a model with weights: a step of a large model takes seconds of the search's budget."""
    source = f"""
import torch
from autocut import Task

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 3)
    def forward(self, x):
        return self.layer(x) * (float("nan") if self.training else 1.0)

def rows(seed):
    x = torch.rand(60, 8, generator=torch.Generator().manual_seed(seed))
    return torch.utils.data.TensorDataset(x, (3 * x[:, 0]).long())

task = Task(name="tiny", model=Model, train=rows(0), validation=rows(1), test=rows(2), pretrained={pretrained})
"""
    (tmp_path / "task.py").write_text(source, encoding="utf-8")
    faults = check_task(tmp_path / "task.py", lambda *_: {"error": "not asked"}, trains=trains)

    assert any("finite in train mode" in fault.message for fault in faults) is told


def test_a_sparse_table_with_an_optimizer_that_takes_it_is_no_fault():
    """SGD does."""
    assert found(model=TABLE, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.3)) == ""


def test_the_model_itself_is_not_trained():
    """The checks after the step see the weights of the task."""
    model = After(lambda _, x: x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows, labels = words(0)
    task = Task(name="tiny", model=lambda: model, train=words(0), test=words(1))

    assert list(training_check.training_faults(task, model.eval(), (rows.float(), labels))) == []
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not model.training


def test_the_optimizer_of_a_big_model_keeps_no_state_of_large_gradients(monkeypatch):
    """It would be twice the model's size; sparse gradients are kept, as they are what an optimizer refuses."""
    monkeypatch.setattr(training_check, "_BIG_MODEL", 10)
    monkeypatch.setattr(training_check, "_SMALL_GRADIENT", 5)

    assert found(model=lambda: After(lambda _, x: x)) == ""
    assert "Adam does not support sparse" in found(model=TABLE)
