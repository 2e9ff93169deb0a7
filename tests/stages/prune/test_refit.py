"""What is left answers for what is gone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autocut.stages.prune.parts import find_hidden_layers
from autocut.stages.prune.refit import refit
from autocut.stages.prune.removal import remove_parts


@pytest.mark.parametrize("bias", [True, False])
def test_neurons_that_others_can_stand_for_are_replaced_by_them(bias):
    """The second half of the neurons repeats the first, so it can go: the weights of its twins grow."""
    model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 16, bias=bias), nn.ReLU(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        model[0].weight[16:], model[0].bias[16:] = model[0].weight[:16], model[0].bias[:16]
    inputs = torch.randn(256, 8)
    first, second = find_hidden_layers(model, inputs[:2])
    kept = {first: torch.arange(16), second: torch.arange(16)}
    pruned = copy.deepcopy(model)
    left_whole = remove_parts(pruned, kept, inputs[:2])
    before = (pruned(inputs) - model(inputs)).norm()
    refit(pruned, model, kept, [inputs[:128], inputs[128:]])

    assert not left_whole
    assert (first.reader, second.reader, pruned[2].in_features) == ("2", "4", 16)
    assert (pruned(inputs) - model(inputs)).norm() < 0.1 * before


def test_neurons_that_never_change_go_into_the_bias():
    """A neuron with a constant answer is worth its constant."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        model[0].weight[8:] = 0
        model[0].bias[8:] = 1
    inputs = torch.randn(64, 8)
    kept = {hidden: torch.arange(8) for hidden in find_hidden_layers(model, inputs[:2])}
    pruned = copy.deepcopy(model)
    remove_parts(pruned, kept, inputs[:2])
    refit(pruned, model, kept, [inputs])

    torch.testing.assert_close(pruned(inputs), model(inputs), rtol=1e-4, atol=1e-4)
