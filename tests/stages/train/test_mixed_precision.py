"""Trainings in mixed precision: products of bfloat16, everything else as before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from autocut.stages.train import Device, Teacher, train_model

BF16 = Device(precision="bf16")


@pytest.fixture
def model(task):
    """The blob task's untrained model."""
    return task.build_model()


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All parameters in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train.ema": 0.9},
        {"curriculum.schedule": "linear", "curriculum.order": "infobatch"},
        {"distill.loss": "kl"},
        {"distill.loss": "kl", "distill.features": "similarity"},
        {"distill.loss": "kl", "distill.features": "hint"},
    ],
    ids=str,
)
def test_the_weights_are_float32_and_near_those_of_fp32(task, model, settings):
    """They moved as far and in the same direction, but not to the last bit: the products were rounded."""
    settings, teacher = {"train.epochs": 3, **settings}, Teacher(task.build_model())
    plain, mixed = (train_model(model, task, settings, teacher=teacher, device=device).model for device in (Device(), BF16))

    assert {tensor.dtype for tensor in mixed.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    moved, expected = weights(mixed) - weights(model), weights(plain) - weights(model)
    assert not torch.equal(moved, expected)
    assert functional.cosine_similarity(moved, expected, dim=0) > 0.95


def test_the_loss_gets_float32(task, model):
    """A loss of a task may mix outputs with tensors of its own."""
    seen = set()

    def loss(outputs, targets):
        seen.add(outputs.dtype)
        return functional.cross_entropy(outputs, targets)

    train_model(model, replace(task, loss=loss), {"train.epochs": 1}, device=BF16)

    assert seen == {torch.float32}


def test_quantization_aware_training_stays_in_fp32(task, model):
    """What is rounded to integers would be moved off their grid."""
    settings = {"train.epochs": 1, "train.quantization_aware": "int8"}
    plain, mixed = (train_model(model, task, settings, device=device).model for device in (Device(), BF16))

    torch.testing.assert_close(mixed.state_dict(), plain.state_dict(), rtol=0, atol=0)
