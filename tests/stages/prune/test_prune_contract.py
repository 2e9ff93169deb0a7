"""What every pruning method promises, run for every registered one."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.stages.prune import Pruned, PruneData, pruners
from autocut.task.batches import Inputs

MODELS = ("tiny_mlp", "tiny_cnn", "tiny_resnet", "tiny_transformer", "tiny_deep")
cutting = pytest.mark.parametrize("name", [name for name in pruners.names() if name != "none"])


@pytest.fixture(params=MODELS)
def model_and_inputs(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """Every tiny model with sixteen examples."""
    inputs = request.getfixturevalue(request.param.removeprefix("tiny_") + "_inputs")
    return request.getfixturevalue(request.param), inputs


def pruned_by(name: str, model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Prune, or skip the test where the method says why it does not take this model."""
    try:
        return pruners[name](model, ratio, data)
    except InfeasibleRecipeError as error:
        pytest.skip(error.message)


def data_for(model: nn.Module, inputs: Inputs) -> PruneData:
    """Prune data with labels that the model could have."""
    return PruneData(inputs, [(inputs, torch.randint(0, 3, (16,)))], functional.cross_entropy)


@pytest.mark.parametrize("name", pruners.names())
def test_pruner_leaves_its_input_alone(name, model_and_inputs):
    """A stage returns a new model: the next trial starts from the same weights."""
    model, inputs = model_and_inputs
    before = copy.deepcopy(model.state_dict())
    pruned = pruned_by(name, model, 0.5, data_for(model, inputs))

    assert pruned.model is not model
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", pruners.names())
def test_pruner_keeps_the_output_shape_and_the_mode(name, model_and_inputs):
    """A pruned model stands in for the one that it came from."""
    model, inputs = model_and_inputs
    pruned = pruned_by(name, model, 0.5, data_for(model, inputs)).model

    assert pruned(inputs).shape == model(inputs).shape
    assert not any(module.training for module in pruned.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in pruned.parameters())


@pytest.mark.parametrize("name", pruners.names())
def test_pruner_is_deterministic(name, model_and_inputs):
    """The same model, ratio and data give the same weights: stage keys rely on it."""
    model, inputs = model_and_inputs
    data = data_for(model, inputs)
    first, second = (pruned_by(name, model, 0.5, data) for _ in range(2))

    torch.testing.assert_close(first.model.state_dict(), second.model.state_dict(), rtol=0, atol=0)
    assert first.masks.keys() == second.masks.keys()


@cutting
def test_pruner_cuts_something(name, model_and_inputs):
    """Half of the weights asked for means fewer weights."""
    model, inputs = model_and_inputs
    pruned = pruned_by(name, model, 0.5, data_for(model, inputs)).model

    assert count_nonzero(pruned) < 0.8 * count_nonzero(model)


@cutting
def test_pruner_refuses_a_ratio_that_removes_nothing(name, model_and_inputs):
    """A knob that changed nothing is an error, not a trial."""
    model, inputs = model_and_inputs
    pruned_by(name, model, 0.5, data_for(model, inputs))
    with pytest.raises(InfeasibleRecipeError, match=r"prune.ratio 1e-05"):
        pruners[name](model, 1e-5, data_for(model, inputs))


@cutting
def test_every_pruner_takes_some_model(name, request):
    """A method that refuses all of them would pass every other test."""
    feasible = 0
    for model_name in MODELS:
        inputs = request.getfixturevalue(model_name.removeprefix("tiny_") + "_inputs")
        model = request.getfixturevalue(model_name)
        with contextlib.suppress(InfeasibleRecipeError):
            pruners[name](model, 0.5, data_for(model, inputs))
            feasible += 1
    assert feasible


@cutting
def test_masks_tell_the_zeros(name, model_and_inputs):
    """A mask has its parameter's shape and is False only where the weight is zero."""
    model, inputs = model_and_inputs
    pruned = pruned_by(name, model, 0.5, data_for(model, inputs))

    for parameter_name, mask in pruned.masks.items():
        parameter = pruned.model.get_parameter(parameter_name)
        assert mask.dtype == torch.bool
        assert mask.shape == parameter.shape
        assert not parameter[~mask].any()


@pytest.mark.parametrize("name", pruners.names())
def test_a_pruned_model_can_be_exported(name, model_and_inputs):
    """Every compile mode starts from an exported graph."""
    model, inputs = model_and_inputs
    pruned = pruned_by(name, model, 0.5, data_for(model, inputs)).model
    exported = torch.export.export(pruned, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)).module()

    torch.testing.assert_close(exported(inputs[:5]), pruned(inputs[:5]), rtol=1e-4, atol=1e-5)


def count_nonzero(model: nn.Module) -> int:
    """Weights that are not zero, in all parameters."""
    return sum(int((parameter != 0).sum()) for parameter in model.parameters())
