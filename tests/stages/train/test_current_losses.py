"""Orders that follow the training: what they rank by, what they weigh, and what they spare."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autocut.stages.train import orders, train_model
from autocut.stages.train.current_losses import CurrentLosses
from autocut.stages.train.loss import TrainingLoss, weighted
from autocut.stages.train.plan import DEFAULTS
from autocut.task.kinds import kinds

FOLLOWING = [order.name for order in orders if order.options.follows_training]
LOSS = kinds["classification"]()


def losses_of(name, losses):
    """The losses of a training whose examples have all been seen."""
    return CurrentLosses(orders.method(name), np.array(losses), LOSS)


@pytest.mark.parametrize("name", FOLLOWING)
def test_an_epoch_shows_each_of_its_examples_once(name):
    """As many as the plan says."""
    losses = np.random.default_rng(0).random(50)
    drawn, _ = losses_of(name, losses).draw_epoch(30, np.random.default_rng(1))

    assert len(drawn) == len(set(drawn)) == 30


def test_the_losses_are_those_of_the_model_when_it_last_saw_the_examples():
    """Each row's by itself; the others keep theirs."""
    followed = losses_of("self_paced", [9.0] * 6)
    outputs, targets = torch.randn(3, 4), torch.tensor([1, 0, 3])
    followed.record(torch.tensor([5, 0, 2]), outputs, targets)

    expected = np.full(6, 9.0)
    expected[[5, 0, 2]] = nn.functional.cross_entropy(outputs, targets, reduction="none")
    np.testing.assert_allclose(followed.state().numpy(), expected, rtol=1e-6)


def test_self_paced_learning_takes_what_is_easy_now():
    """In a random order within the epoch."""
    losses = np.random.default_rng(0).permutation(40.0 * np.arange(40))
    drawn, weights = losses_of("self_paced", losses).draw_epoch(10, np.random.default_rng(1))

    assert set(losses[drawn]) == set(40.0 * np.arange(10))
    assert weights is None
    assert list(losses[drawn]) != sorted(losses[drawn])


@given(st.lists(st.floats(0, 100), min_size=8, max_size=60), st.floats(0.2, 1), st.integers(0, 5))
def test_infobatch_lets_the_well_learned_that_stay_stand_for_those_that_do_not(losses, share, seed):
    """Their weights make up for the smaller share of them; all others weigh 1, and so does everything where nothing is left out."""
    losses = np.array(losses)
    learned = losses < losses.mean()
    drawn, weights = losses_of("infobatch", losses).draw_epoch(int(len(losses) * share), np.random.default_rng(seed))
    of_learned, of_others = weights[learned[drawn]], weights[~learned[drawn]]

    assert (of_others == 1).all()
    if len(of_learned):
        assert of_learned.sum() / learned.sum() == pytest.approx(of_others.sum() / (~learned).sum())
    if len(drawn) == len(losses):
        assert (weights == 1).all()


def test_the_gradient_of_infobatch_is_on_average_that_of_all_the_data(make_task):
    """The mean over many epochs, each of them weighted, is the gradient of the mean loss."""
    task = make_task(model=lambda: nn.Linear(8, 3), batch_size=97, optimizer=lambda weights: torch.optim.SGD(weights, lr=0.1))
    model = task.build_model(seed=1)
    losses = torch.nn.functional.cross_entropy(model(task.train_data[:][0]), task.train_data[:][1], reduction="none")
    followed = losses_of("infobatch", losses.detach().double().numpy())
    moved = torch.zeros(3, 8)
    for seed in range(400):
        drawn, weights = followed.draw_epoch(70, np.random.default_rng(seed))
        inputs, targets = (part[torch.from_numpy(drawn)] for part in task.train_data[:])
        each = torch.nn.functional.cross_entropy(model(inputs), targets, reduction="none")
        moved += torch.autograd.grad((torch.from_numpy(weights) * each).sum() / weights.sum(), model.weight)[0] / 400
    (whole,) = torch.autograd.grad(losses.mean(), model.weight)

    torch.testing.assert_close(moved, whole.float(), rtol=0, atol=0.02 * float(whole.abs().max()), check_dtype=False)


def test_a_weighted_loss_is_the_weighted_mean_of_the_losses_of_the_examples():
    """Task loss and distillation alike; the oracle weighs each example by itself."""
    outputs, logits, targets = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([1, 0, 3, 2, 2, 1])
    weights = torch.tensor([1.0, 2.5, 1.0, 2.5, 2.5, 1.0])
    loss = TrainingLoss(LOSS, {**DEFAULTS, "distill.loss": "kl", "distill.alpha": 0.3})
    each = [loss(outputs[at : at + 1], targets[at : at + 1], logits[at : at + 1]) for at in range(6)]

    torch.testing.assert_close(weighted(loss, outputs, targets, logits, 0.0, weights), (weights * torch.stack(each)).mean())


def test_a_training_with_infobatch_weighs_its_examples(task, monkeypatch):
    """It differs from one that leaves out the same examples and weighs nothing."""
    settings = {"train.epochs": 3, "curriculum.schedule": "hold", "curriculum.order": "infobatch"}
    weighed = train_model(task.build_model(), task, settings)
    method = orders.method("infobatch")
    monkeypatch.setitem(orders._methods, "infobatch", replace(method, options=replace(method.options, weigh=None)))
    plain = train_model(task.build_model(), task, settings)

    assert weighed.samples_seen == plain.samples_seen < 3 * 96
    assert weighed.history[0].train_loss == plain.history[0].train_loss
    assert weighed.history[1].train_loss != plain.history[1].train_loss
