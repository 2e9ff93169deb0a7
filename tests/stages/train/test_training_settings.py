"""Settings of a training beside its epochs: the moving average of the weights, and label smoothing."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.recipe import Recipe
from autocut.stages.train import train_model
from autocut.stages.train.averaging import AveragedWeights
from autocut.stages.train.loss import TrainingLoss
from autocut.stages.train.plan import DEFAULTS
from autocut.task.kinds import kinds

AVERAGED = {"train.epochs": 3, "train.lr_scale": 5.0, "train.ema": 0.9}


@given(st.lists(st.floats(-10, 10), max_size=30), st.floats(0, 0.999))
def test_the_average_keeps_a_share_and_less_at_first(weights, decay):
    """The oracle is the recursion in Python, on one weight; a counter is not averaged."""
    model = nn.BatchNorm1d(1)
    average, expected = AveragedWeights(model, decay), 1.0
    for step, weight in enumerate(weights, start=1):
        nn.init.constant_(model.weight, weight)
        model.num_batches_tracked += 1
        average.update(model)
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weight

    assert average.model.weight.item() == pytest.approx(expected, abs=1e-4)
    assert int(average.model.num_batches_tracked) == len(weights)


def test_an_averaged_training_returns_the_average_of_what_it_passed_through(task):
    """Its steps are those of the training without it, and what is scored after an epoch is what is returned."""
    model = task.build_model()
    before, scored = copy.deepcopy(model.state_dict()), []
    averaged = train_model(model, task, AVERAGED, on_epoch=lambda epoch: scored.append(copy.deepcopy(epoch.model.state_dict())))
    plain = train_model(model, task, AVERAGED | {"train.ema": 0})

    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert [one.train_loss for one in averaged.history] == [one.train_loss for one in plain.history]
    assert not torch.equal(averaged.model[0].weight, plain.model[0].weight)
    torch.testing.assert_close(averaged.model.state_dict(), scored[-1], rtol=0, atol=0)
    assert not averaged.model.training


def test_an_averaged_training_that_was_killed_goes_on_to_the_same_weights(task, tmp_path):
    """The average is in the checkpoint."""
    model, path = task.build_model(), tmp_path / "checkpoint.pt"
    through = train_model(model, task, AVERAGED).model

    def die(epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(model, task, AVERAGED, checkpoint=path, on_epoch=die)
    resumed = train_model(model, task, AVERAGED, checkpoint=path).model
    torch.testing.assert_close(resumed.state_dict(), through.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "shape", "targets"),
    [
        ("classification", (5, 4), torch.tensor([0, 1, 2, 3, 3])),
        ("language_modeling", (2, 3, 4), torch.tensor([[0, 1, -100], [2, 3, -100]])),
        ("segmentation", (2, 4, 1, 2), torch.tensor([[[0, -100]], [[3, 2]]])),
    ],
)
def test_label_smoothing_is_what_torch_calls_so(kind, shape, targets):
    """What is ignored stays ignored, and the classes may be the second dimension."""
    outputs, kind = torch.randn(shape), kinds[kind]()
    smoothed = TrainingLoss(kind, {**DEFAULTS, "train.label_smoothing": 0.2})(outputs, targets, None)
    expected = functional.cross_entropy(outputs.movedim(kind.class_dim, 1), targets, label_smoothing=0.2)

    torch.testing.assert_close(smoothed, expected)


def test_label_smoothing_without_classes_is_infeasible_before_the_first_step(make_task):
    """A number has no other classes to spread a share over."""
    task = make_task(kind="regression", model=lambda: nn.Linear(8, 1), train=(torch.randn(20, 8), torch.randn(20, 1)))
    stops = iter([])
    with pytest.raises(InfeasibleRecipeError, match=r"label_smoothing needs outputs that are logits of classes"):
        train_model(task.build_model(), task, {"train.epochs": 1, "train.label_smoothing": 0.1}, stop=lambda: next(stops))


def test_settings_that_are_off_leave_the_recipe_as_it_was():
    """Stages and studies of before are found again; those that are on are told."""
    plain = Recipe({"train.epochs": 2, "train.lr_scale": 0.3})

    assert Recipe({**plain, "train.ema": 0.0, "train.label_smoothing": 0}).canonical_json() == plain.canonical_json()
    on = Recipe({**plain, "train.ema": 0.99, "train.label_smoothing": 0.1})
    assert on.describe() == "2 epochs lr x0.3 ema 0.99 smoothing 0.1"
