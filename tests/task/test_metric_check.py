"""The part of `autocut check` that examines loss and metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from autocut.task.check import faults_of
from autocut.task.metric_check import compares_all_pairs
from autocut.task.task import Task


def found(**changes):
    """Faults of a small regression."""
    x = torch.randn(3, 60, 4, generator=torch.Generator().manual_seed(0))
    splits = {name: (part, part[:, 0]) for name, part in zip(("train", "validation", "test"), x, strict=True)}
    return faults_of(Task(**{"name": "tiny", "model": lambda: nn.Linear(4, 1), "kind": "regression", **splits, **changes}))


def ranking(outputs, targets):
    """A loss of pairs: the output of the larger target should be larger. No mean over examples, and no mistake."""
    flat = outputs.flatten()
    return functional.softplus(-(flat[:, None] - flat) * (targets[:, None] - targets).sign()).mean()


LOSSES = {
    "mse": nn.MSELoss(),
    "l1": nn.L1Loss(),
    "huber": nn.HuberLoss(),
    "sum": nn.MSELoss(reduction="sum"),
    "own": lambda outputs, targets: (outputs - targets).square().mean(),
    "log": lambda outputs, targets: (outputs - targets).cosh().log().mean(),
}
SHAPES = [((8, 1), (8,)), ((8,), (8, 1)), ((8, 1, 3, 3), (8, 3, 3))]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("outputs", "targets"), SHAPES)
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_loss_that_broadcasts_is_found_whatever_its_formula(loss, outputs, targets, offset):
    """And the same loss of equal shapes is none, for targets far from zero too."""
    answers, wanted = torch.randn(outputs), torch.randn(targets) + offset

    assert compares_all_pairs(loss, answers, wanted)
    assert not compares_all_pairs(loss, answers.reshape(wanted.shape), wanted)


@pytest.mark.parametrize(
    "loss",
    [
        ranking,
        lambda outputs, targets: functional.mse_loss(outputs.reshape(targets.shape), targets),
        lambda outputs, targets: outputs.square().mean(),
        lambda outputs, targets: nn.BCELoss()(outputs.squeeze(1).sigmoid(), (targets > 0).to(outputs.dtype)),
    ],
    ids=["ranking", "reshapes", "ignores its targets", "bce"],
)
def test_a_loss_that_is_no_mean_or_reshapes_by_itself_is_let_pass(loss):
    """Outputs (n, 1) and targets (n,) are no fault by themselves."""
    assert not compares_all_pairs(loss, torch.zeros(8, 1), torch.randn(8))


def test_scores_that_broadcast_are_told_with_their_shapes():
    """They would be n scores for each example, or the same mean over all targets."""
    for metric in (lambda o, t: -(o - t).abs(), lambda o, t: -(o - t).abs().mean(1)):
        (fault,) = found(metric=metric)
        assert "task.metric must compare each output with its own target, got outputs (32, 1) and targets (32,)" in fault.message
        assert ".squeeze(1)" in fault.hint
    assert found(metric=lambda o, t: -(o.squeeze(1) - t).abs()) == []


def test_scores_that_depend_on_the_batch_are_a_fault():
    """Two models are compared example by example, and the last batch is smaller."""

    def metric(outputs, targets):
        errors = (outputs.squeeze(1) - targets).abs()
        return -errors / errors.max()

    (fault,) = found(metric=metric)

    assert "task.metric must score each example by itself" in fault.message
    assert "summarize=" in fault.hint


def test_several_numbers_per_example_need_a_summary():
    """The hint says how to write it."""

    def parts(outputs, targets):
        return torch.stack([outputs.squeeze(1) * targets, targets.square()], dim=1)

    (fault,) = found(metric=parts)

    assert "one number for each of 32 examples, got shape (32, 2)" in fault.message
    assert "summarize=f(scores, targets)" in fault.hint
    assert found(metric=parts, summarize=lambda scores, _: float(scores[:, 0].sum() / scores[:, 1].sum())) == []


def by_class(rare):
    """A task whose splits are sorted by class; `rare` of 600 examples are in the second one."""
    splits = {}
    for seed, name in enumerate(("train", "validation", "test")):
        labels = (torch.arange(600) >= 600 - rare).long()
        inputs = torch.randn(600, 4, generator=torch.Generator().manual_seed(seed))
        splits[name] = inputs, labels
    return splits


def margin(outputs, targets):
    """Logit of the second class."""
    return outputs[:, 1] - outputs[:, 0]


def auc(scores, targets):
    """Undefined where the targets are of one class."""
    return float(roc_auc_score(targets, scores))


def strict_auc(scores, targets):
    """As `auc`; it raises where that gives NaN, as older versions of scikit-learn do."""
    if len(np.unique(targets)) == 1:
        raise ValueError("only one class in targets")
    return auc(scores, targets)


@pytest.mark.parametrize("summarize", [auc, strict_auc])
@pytest.mark.parametrize("rare", [300, 8, 1])
def test_a_metric_that_needs_both_classes_is_judged_on_enough_examples(summarize, rare):
    """Each batch of 32 in the order of the file holds one class alone."""
    options = {"kind": "classification", "model": lambda: nn.Linear(4, 2), "metric": margin, "summarize": summarize}

    assert found(**options, **by_class(rare)) == []


@pytest.mark.parametrize("summarize", [auc, strict_auc])
def test_a_metric_that_is_undefined_because_there_is_one_class_is_told_as_that(summarize):
    """Once for each split; the metric is not the reason."""
    options = {"kind": "classification", "model": lambda: nn.Linear(4, 2), "metric": margin, "summarize": summarize}

    assert [fault.message.partition(" must ")[2] for fault in found(**options, **by_class(0))] == [
        "hold more than one target, got 0 in all 600 examples",
        "hold more than one target, got 0 in all 600 examples",
        "hold more than one target, got the same one in all 600 examples",
    ]


@pytest.mark.parametrize(("summarize", "got"), [(auc, "nan"), (strict_auc, "ValueError: only one class in targets")])
def test_a_metric_that_is_undefined_on_all_of_validation_is_a_fault(summarize, got):
    """No trial could be measured."""
    of_one_class = lambda scores, targets: summarize(scores, np.zeros_like(targets))  # noqa: E731
    options = {"kind": "classification", "model": lambda: nn.Linear(4, 2), "metric": margin, "summarize": of_one_class}
    (fault,) = found(**options, **by_class(300))

    assert f"task.summarize must give a finite number, got {got}" in fault.message
    assert "on 600 examples of validation" in fault.message
    assert "each in task.validation" in fault.hint
