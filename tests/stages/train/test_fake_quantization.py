"""Quantization-aware training: it computes with rounded numbers, and leaves a plain float model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocut.errors import DivergedError, InfeasibleRecipeError
from autocut.stages.train import fake_quantizers, train_model
from autocut.stages.train.fake_quantization import FakeQuantization

ROUNDING = [name for name in fake_quantizers.names() if name != "none"]
every_rounding = pytest.mark.parametrize("name", ROUNDING)


def settings(name, epochs=2):
    """A quantization-aware training."""
    return {"train.epochs": epochs, "train.quantization_aware": name}


def assert_same_weights(left: nn.Module, right: nn.Module) -> None:
    """Equal to the last bit, buffers included."""
    torch.testing.assert_close(left.state_dict(), right.state_dict(), rtol=0, atol=0)


@every_rounding
def test_operands_are_rounded_and_gradients_pass(name):
    """A weight takes few values, all near its own; zero stays zero; what is given stays as it is."""
    inputs, weight = torch.randn(5, 40), torch.randn(6, 40)
    weight[:, ::3] = 0
    given = copy.deepcopy((inputs, weight))
    inputs.requires_grad_()
    weight.requires_grad_()
    products = fake_quantizers[name](inputs, weight)
    (products[0].sum() + products[1].sum()).backward()

    torch.testing.assert_close((inputs.detach(), weight.detach()), given, rtol=0, atol=0)
    assert not torch.equal(products[1], weight)
    assert max(len(row.unique()) for row in products[1]) <= 256
    assert not products[1][:, ::3].any()
    torch.testing.assert_close(products, given, rtol=0, atol=float(weight.detach().abs().max()) / 7)
    torch.testing.assert_close((inputs.grad, weight.grad), tuple(map(torch.ones_like, given)))


def test_a_layer_that_is_aware_of_int8_computes_as_integers_do():
    """The oracle multiplies int64 numbers and scales the sums."""
    inputs, weight = torch.rand(7, 20) * 3 - 1, torch.randn(4, 20)
    with FakeQuantization(fake_quantizers["int8"]):
        outputs = functional.linear(inputs, weight)
    scale = (inputs.max() - inputs.min()) / 255
    zero_point = (-inputs.min() / scale).round()
    scales = weight.abs().amax(1) / 127
    whole_inputs = ((inputs / scale).round() + zero_point).clamp(0, 255).long() - zero_point.long()
    whole_weight = (weight / scales[:, None]).round().long()

    torch.testing.assert_close(outputs, (whole_inputs @ whole_weight.T) * scale * scales)


@pytest.mark.parametrize(
    "product",
    [
        lambda inputs, weight: functional.linear(inputs, weight=weight.T),
        lambda inputs, weight: functional.conv1d(inputs[..., None], weight.T[..., None]),
        lambda inputs, weight: inputs @ weight,
        lambda inputs, weight: torch.addmm(torch.zeros(3), inputs, weight),
    ],
    ids=["linear", "convolution", "matmul", "addmm"],
)
def test_every_product_with_a_weight_is_rounded(product):
    """As layers write it, and as GPT-2's do."""
    inputs, weight = torch.randn(5, 8), nn.Parameter(torch.randn(8, 3))
    rounding = FakeQuantization(fake_quantizers["int8"])
    with rounding:
        rounded = product(inputs, weight)

    assert rounding.rounded == 1
    assert 0 < (rounded - product(inputs, weight)).abs().max() < 0.2


@pytest.mark.parametrize("width", [8, 4], ids=["one weight for all inputs", "a weight each"])
def test_the_weights_within_an_attention_of_torch_are_rounded(width):
    """Torch computes it in a function of its own, which calls no layer."""
    attention, inputs = nn.MultiheadAttention(8, 2, kdim=width, vdim=width), torch.randn(5, 3, 8)
    key = inputs if width == 8 else inputs[..., :width]
    rounding = FakeQuantization(fake_quantizers["int8"])
    with rounding:
        rounded, _ = attention(inputs, key, key)

    assert rounding.rounded == (2 if width == 8 else 4)
    assert 0 < (rounded - attention(inputs, key, key)[0]).abs().max() < 0.1


def test_a_product_of_two_activations_stays_float():
    """Lowerings keep those of attention in float, too."""
    rounding, inputs = FakeQuantization(fake_quantizers["int8"]), torch.randn(5, 5)
    with rounding:
        assert torch.equal(inputs @ inputs, torch.matmul(inputs, inputs))
    assert rounding.rounded == 0


@every_rounding
def test_an_aware_training_leaves_a_plain_model_and_its_input_alone(task, name):
    """Its modules, parameters and buffers are the given ones; only the numbers are others than without it."""
    model = task.build_model()
    before = copy.deepcopy(model)
    aware, plain = (train_model(model, task, settings(each)).model for each in (name, "none"))

    assert_same_weights(model, before)
    assert [type(module) for module in aware.modules()] == [type(module) for module in model.modules()]
    assert aware.state_dict().keys() == model.state_dict().keys()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in aware.modules())
    assert not torch.equal(aware[0].weight, plain[0].weight)


@every_rounding
def test_an_aware_training_that_was_killed_goes_on_to_the_same_weights(task, name, tmp_path):
    """No range is kept beside the checkpoint."""
    model, path = task.build_model(), tmp_path / "checkpoint.pt"
    through = train_model(model, task, settings(name)).model

    def die(epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(model, task, settings(name), checkpoint=path, on_epoch=die)
    assert_same_weights(train_model(model, task, settings(name), checkpoint=path).model, through)


@every_rounding
def test_a_model_without_weights_to_round_is_infeasible_before_the_first_step(make_task, name):
    """A knob that changes nothing must not look like one that does not help."""
    task = make_task(model=lambda: nn.BatchNorm1d(8), train=(torch.randn(32, 8), torch.randint(0, 8, (32,))))
    stops = iter([])
    with pytest.raises(InfeasibleRecipeError, match=f"quantization_aware '{name}' must round"):
        train_model(task.build_model(), task, settings(name), stop=lambda: next(stops))


@every_rounding
def test_numbers_that_are_not_finite_end_an_aware_training_as_any_other(task, name):
    """Rounding must not hide them, nor fail in another way."""
    with pytest.raises(DivergedError):
        train_model(task.build_model(), task, settings(name) | {"train.lr_scale": 1e30})
