"""The last linear layer answers for what was cut before it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autocut.stages.prune.last_layer import refit_last_layer


class Tied(nn.Module):
    """A model of tokens whose last layer shares its weight with the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.last = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, tokens):
        """Logits (n, length, 20)."""
        return self.last(self.embedding(tokens))


class Twice(nn.Module):
    """A model that runs its last layer twice."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 8)

    def forward(self, inputs):
        """Eight numbers."""
        return self.last(self.last(inputs).relu())


def batches(*shape, count=4):
    """Batches of 64 examples, as a pruner gets them."""
    return [(torch.randn(64, *shape), torch.zeros(64)) for _ in range(count)]


@torch.no_grad()
def narrowed(model, data):
    """Return `model` without the second half of its first layer, and how far its answers are off before and after the refit."""
    pruned = copy.deepcopy(model)
    pruned[0].weight[16:], pruned[0].bias[16:] = 0, 0
    fresh = torch.randn(512, 8)
    before = float((pruned(fresh) - model(fresh)).norm())
    refit_last_layer(pruned, model, data)
    return pruned, before, float((pruned(fresh) - model(fresh)).norm())


@pytest.mark.parametrize("bias", [True, False])
def test_answers_come_closer_to_those_before_the_cut(bias):
    """On examples that the refit has not seen; the model before the cut stays as it is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 3, bias=bias)).eval()
    known = copy.deepcopy(model.state_dict())
    pruned, before, after = narrowed(model, batches(8))

    assert after < 0.7 * before
    torch.testing.assert_close(model.state_dict(), known, rtol=0, atol=0)
    torch.testing.assert_close(pruned[2].weight, model[2].weight, rtol=0, atol=0)
    assert not any(module.training for module in pruned.modules())


def test_few_examples_of_many_features_do_no_harm():
    """What is fitted to 48 rows of 256 features is used only if it also helps on the 16 that are held out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 3)).eval()
    _, before, after = narrowed(model, batches(8, count=1))

    assert after <= before


def test_each_position_of_a_sequence_is_an_example():
    """A per-token classifier is refitted as any other."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    _, before, after = narrowed(model, [(torch.randn(16, 10, 8), torch.zeros(16))] * 4)

    assert after < 0.7 * before


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (Tied(), [(torch.randint(0, 20, (8, 5)), torch.zeros(8))]),
        (Twice(), batches(8)),
        (nn.Sequential(nn.Linear(8, 3), nn.Softmax(dim=-1)), batches(8)),
        (nn.Sequential(nn.Conv1d(8, 3, 1)), batches(8, 5)),
        (nn.Sequential(nn.Linear(8, 3)), []),
    ],
    ids=["shared weight", "runs twice", "not the answer", "no linear layer", "no examples"],
)
def test_a_layer_that_cannot_be_changed_by_itself_stays_as_it_is(model, data):
    """Another answer would change with it, or it is not what answers."""
    whole = copy.deepcopy(model.eval())
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.mul_(2)
    known = copy.deepcopy(model.state_dict())
    refit_last_layer(model, whole, data)

    torch.testing.assert_close(model.state_dict(), known, rtol=0, atol=0)


def test_a_model_that_answers_as_before_stays_as_it_is():
    """There is nothing to repair, down to the last bit."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    pruned = copy.deepcopy(model)
    refit_last_layer(pruned, model, batches(8))

    torch.testing.assert_close(pruned.state_dict(), model.state_dict(), rtol=0, atol=0)
