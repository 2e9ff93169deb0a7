"""Zeros among single weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocut.stages.prune import PruneData, pruners


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_l1_removes_the_asked_fraction_of_what_takes_part(ratio, tiny_cnn, cnn_inputs):
    """All masks together hold `ratio` zeros, within 2%."""
    masks = pruners["l1_unstructured"](tiny_cnn, ratio, PruneData(cnn_inputs, [], functional.cross_entropy)).masks
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    weights = sum(mask.numel() for mask in masks.values())

    assert zeros / weights == pytest.approx(ratio, abs=0.02)


def test_l1_keeps_the_last_layer_and_the_biases(tiny_cnn, cnn_inputs):
    """The classifier has few weights and every class needs them."""
    masks = pruners["l1_unstructured"](tiny_cnn, 0.5, PruneData(cnn_inputs, [], functional.cross_entropy)).masks

    assert set(masks) == {"0.weight", "3.weight"}


def test_l1_removes_the_smallest_weights(tiny_mlp, mlp_inputs):
    """No weight that stays is smaller than one that went."""
    masks = pruners["l1_unstructured"](tiny_mlp, 0.4, PruneData(mlp_inputs, [], functional.cross_entropy)).masks
    weights = torch.cat([tiny_mlp.get_parameter(name).detach()[mask].abs() for name, mask in masks.items()])
    removed = torch.cat([tiny_mlp.get_parameter(name).detach()[~mask].abs() for name, mask in masks.items()])

    assert removed.max() <= weights.min()


def test_l1_prunes_the_only_layer_of_a_linear_model(mlp_inputs):
    """A model of one layer has no other to prune."""
    masks = pruners["l1_unstructured"](nn.Linear(8, 3), 0.5, PruneData(mlp_inputs, [], functional.cross_entropy)).masks

    assert int((~masks["weight"]).sum()) == 12
