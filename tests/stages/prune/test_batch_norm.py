"""Batch normalization repaired after a cut."""

import torch
from torch import nn

from autocut.stages.prune.batch_norm import reestimate_batch_norm


def test_the_statistics_are_those_of_the_batches():
    """Mean and variance over all batches, whatever they were before; modes and momentum stay."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).eval()
    model[1].running_mean.fill_(7)
    batches = [(torch.randn(8, 4), None), (torch.randn(8, 4) + 1, None), (torch.randn(1, 4), None)]
    reestimate_batch_norm(model, batches)
    outputs = [model[0](inputs).detach() for inputs, _ in batches[:2]]

    torch.testing.assert_close(model[1].running_mean, (outputs[0].mean(0) + outputs[1].mean(0)) / 2)
    torch.testing.assert_close(model[1].running_var, (outputs[0].var(0) + outputs[1].var(0)) / 2)
    assert model[1].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_a_model_without_batch_normalization_stays_as_it_is(tiny_mlp, mlp_inputs):
    """Nothing is run for nothing."""
    before = {name: value.clone() for name, value in tiny_mlp.state_dict().items()}
    reestimate_batch_norm(tiny_mlp, [(mlp_inputs, None)])
    torch.testing.assert_close(tiny_mlp.state_dict(), before, rtol=0, atol=0)
