"""Linear layers written as products."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.stages.prune import PruneData, pruners


def cut(model, inputs, ratio, original=None):
    """Prune with the given examples."""
    targets = torch.zeros(len(inputs), dtype=torch.long)
    return pruners["low_rank"](model, ratio, PruneData(inputs, [(inputs, targets)], functional.cross_entropy, original)).model


@pytest.mark.parametrize(("rows", "columns"), [(24, 16), (16, 24)])
def test_a_layer_of_low_rank_loses_nothing(rows, columns):
    """Where the weights have rank 3, a product of rank 5 gives the same answers, biases included."""
    model = nn.Sequential(nn.Linear(columns, rows), nn.ReLU(), nn.Linear(rows, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(rows, 3) @ torch.randn(3, columns))
    inputs = torch.randn(200, columns) + 1
    pruned = cut(model, inputs, 0.4)

    assert pruned[0][0].weight.shape == (5, columns)
    torch.testing.assert_close(pruned(inputs), model(inputs), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(24, 16), (16, 24)])
def test_the_directions_of_the_data_are_kept(rows, columns):
    """Inputs that live in few directions need few ranks, whatever the weights are; plain SVD would lose much here."""
    model = nn.Sequential(nn.Linear(columns, rows), nn.ReLU(), nn.Linear(rows, 2)).eval()
    inputs = torch.randn(300, 3) @ torch.randn(3, columns) + 1
    found, wanted = cut(model, inputs, 0.5)[0](inputs), model[0](inputs)
    left, values, right = torch.linalg.svd(model[0].weight)
    plain = inputs @ (left[:, :4] @ torch.diag(values[:4]) @ right[:4]).T + model[0].bias

    assert (found - wanted).norm() < 0.01 * wanted.norm()
    assert (found - wanted).norm() < 0.1 * (plain - wanted).norm()


@pytest.mark.parametrize(("rows", "columns"), [(24, 16), (16, 24)])
def test_every_position_of_a_sequence_counts(rows, columns):
    """The first position of each sequence, often one that stands for all, lives elsewhere: looked at alone, it loses the others."""
    model = nn.Sequential(nn.Linear(columns, rows), nn.ReLU(), nn.Linear(rows, 2)).eval()
    sequences = torch.randn(512, 8, 3) @ torch.randn(3, columns)
    sequences[:, 0] = torch.randn(512, 3) @ torch.randn(3, columns)
    data = PruneData(sequences[:2], [(sequences, torch.zeros(512, 8))], functional.mse_loss)
    found, wanted = pruners["low_rank"](model, 0.2, data).model[0](sequences), model[0](sequences)

    assert (found - wanted).norm() < 0.01 * wanted.norm()


def test_a_second_cut_counts_from_the_first_model(tiny_mlp, mlp_inputs):
    """The shapes after two cuts are those of one."""
    twice = cut(cut(tiny_mlp, mlp_inputs, 0.3), mlp_inputs, 0.6, original=tiny_mlp)

    def shapes(model):
        return [tuple(parameter.shape) for parameter in model.parameters()]

    assert shapes(twice) == shapes(cut(tiny_mlp, mlp_inputs, 0.6))


def test_layers_that_others_read_stay_whole(tiny_transformer, transformer_inputs):
    """`nn.MultiheadAttention` and `nn.TransformerEncoderLayer` read the weights of their layers, so nothing is left to cut."""
    with pytest.raises(InfeasibleRecipeError, match="got none"):
        cut(tiny_transformer, transformer_inputs, 0.5)


def test_the_factors_are_trained_like_the_layer(tiny_mlp, mlp_inputs):
    """A layer that the user has frozen stays frozen."""
    tiny_mlp[0].requires_grad_(False)
    pruned = cut(tiny_mlp, mlp_inputs, 0.5)

    assert not any(parameter.requires_grad for parameter in pruned[0].parameters())
    assert all(parameter.requires_grad for parameter in pruned[2].parameters())
