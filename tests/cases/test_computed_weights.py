"""Weights that a model computes in every call are folded before anything copies or pickles it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.data import TensorDataset

from autocut.task import building
from autocut.task.check import check_task, faults_of, notes_of
from autocut.task.folding import Folded, fold_weights
from autocut.task.task import Task


class Symmetric(nn.Module):
    """A parametrization of the user's own."""

    def forward(self, weight):
        """(k, k) -> (k, k)."""
        return weight.triu() + weight.triu(1).T


def pruned(layer):
    """Mask a third of the weights, twice."""
    prune.l1_unstructured(layer, "weight", amount=0.3)
    return prune.random_unstructured(layer, "weight", amount=0.1)


def own(layer):
    """Register a parametrization."""
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "older weight_norm": nn.utils.weight_norm,
    "older spectral_norm": nn.utils.spectral_norm,
    "pruning mask": pruned,
    "Symmetric": own,
}


def model(kind="pruning mask"):
    """Two layers, the first with a computed weight."""
    return nn.Sequential(KINDS[kind](nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 3))


def masked():
    """A network that was pruned before."""
    return model("pruning mask")


def split(seed):
    """Sixty rows of three classes."""
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :3].argmax(1))


def task(build, **changes):
    """A task of such a model."""
    return Task(name="tiny", model=build, train=split(0), validation=split(1), test=split(2), pretrained=False, **changes)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folded_model_answers_the_same_and_can_be_copied_and_pickled(kind, frozen):
    """Its weight is a parameter again, frozen where it was frozen."""
    torch.manual_seed(3)
    built, x = model(kind).requires_grad_(not frozen).eval(), torch.randn(5, 6)
    expected = built(x).detach()
    folded = fold_weights(built)

    assert list(folded.weights) == [kind.removeprefix("older ")]
    assert folded.weights[kind.removeprefix("older ")] == ("0.weight",)
    assert sorted(built.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert built.get_parameter("0.weight").requires_grad is not frozen
    torch.testing.assert_close(copy.deepcopy(built)(x).detach(), expected, rtol=0, atol=1e-6)
    pickle.dumps(built)


def test_the_masks_of_a_pruned_model_say_which_weights_stay():
    """Training applies them after each step."""
    built = masked().eval()
    folded = fold_weights(built)

    assert torch.equal(folded.masks["0.weight"], built.get_parameter("0.weight") != 0)
    assert not folded.masks["0.weight"].all()


def test_a_plain_model_is_left_alone():
    """No note, no mask."""
    plain = nn.Linear(3, 3)
    weight = plain.weight

    assert fold_weights(plain) == Folded()
    assert plain.weight is weight


def test_the_task_builds_folded_models_and_the_check_tells_it_once(tmp_path):
    """It is a note, not a fault."""
    text = (
        "import torch\nfrom torch import nn\nfrom torch.nn.utils.parametrizations import weight_norm\nfrom autocut import Task\n"
        "def split(seed):\n    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(seed))\n"
        "    return x, x[:, :3].argmax(1)\n"
        "def model():\n    return nn.Sequential(weight_norm(nn.Linear(6, 6)), weight_norm(nn.Linear(6, 3)))\n"
        "task = Task(name='tiny', model=model, train=split(0), validation=split(1), test=split(2))\n"
    )
    (tmp_path / "task.py").write_text(text)

    assert check_task(tmp_path / "task.py") == []
    assert notes_of(tmp_path / "task.py") == ["task.model: weight_norm of 0.weight and 1 other is folded into plain weights"]


def test_a_parametrization_that_cannot_be_folded_is_refused(monkeypatch):
    """With the function of torch that removes it."""

    def refuse(model):
        raise RuntimeError("no")

    monkeypatch.setattr(building, "fold_weights", refuse)
    found = faults_of(task(masked))

    assert found[0].message == "task.model must have weights that can be folded, got RuntimeError: no"
    assert "remove_parametrizations" in found[0].hint


class Drawn(nn.Module):
    """Draws a new weight in each call."""

    def forward(self, weight):
        """(k, k) -> (k, k)."""
        return weight + torch.rand(())


def drawn():
    """A model whose weight is random, until it is folded."""
    layer = nn.Linear(6, 3)
    parametrize.register_parametrization(layer, "weight", Drawn())
    return layer


def test_a_model_that_answers_otherwise_after_folding_is_refused():
    """Its computed weight is no constant of the trained model."""
    messages = [fault.message for fault in faults_of(task(drawn))]

    assert len(messages) == 1
    assert "task.model must answer the same when the computed weight weight is folded" in messages[0]
