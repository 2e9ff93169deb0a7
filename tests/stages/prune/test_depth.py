"""Whole blocks removed."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.stages.prune import PruneData, pruners


def cut(model, inputs, ratio, original=None):
    """Prune with sixteen examples."""
    targets = torch.zeros(len(inputs), dtype=torch.long)
    return pruners["depth"](model, ratio, PruneData(inputs, [(inputs, targets)], functional.cross_entropy, original)).model


def test_the_blocks_that_change_least_go(tiny_deep, deep_inputs):
    """Half of four blocks: the two with a small branch."""
    pruned = cut(tiny_deep, deep_inputs, 0.5)

    assert [block.scale for block in pruned.blocks] == [4.0, 3.0]
    torch.testing.assert_close(pruned(deep_inputs), tiny_deep(deep_inputs), rtol=0.3, atol=0.3)


def test_a_second_cut_counts_from_the_first_model(tiny_deep, deep_inputs):
    """Cutting to a quarter and then to a half leaves what cutting to a half leaves."""
    once = cut(tiny_deep, deep_inputs, 0.25)
    twice = cut(once, deep_inputs, 0.5, original=tiny_deep)

    assert [block.scale for block in once.blocks] == [4.0, 0.1, 3.0]
    assert [block.scale for block in twice.blocks] == [4.0, 3.0]


def test_one_block_is_left(tiny_deep, deep_inputs):
    """A model without blocks is another model."""
    assert len(cut(tiny_deep, deep_inputs, 0.95).blocks) == 1


def test_a_plain_network_has_no_blocks(tiny_mlp, mlp_inputs):
    """A layer of a plain stack is no block, even where its shapes would fit."""
    with pytest.raises(InfeasibleRecipeError, match="at least two blocks"):
        cut(nn.Sequential(tiny_mlp, nn.ReLU()), mlp_inputs, 0.5)


def test_a_model_that_needs_a_block_by_its_number_is_refused(tiny_deep, deep_inputs):
    """It would not run afterwards."""

    class ByNumber(type(tiny_deep)):
        def forward(self, x):
            x = self.stem(x)
            for number in range(4):
                x = self.blocks[number](x)
            return self.head(x)

    with pytest.raises(InfeasibleRecipeError, match="does not run without"):
        cut(ByNumber().eval(), deep_inputs, 0.5)
