"""Tasks as people write them, with the faults that they reported: losses, metrics, and what a teacher may teach."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from autocut.errors import InfeasibleRecipeError
from autocut.measure.accuracy import score_model, to_accuracy
from autocut.stages.methods import unfit_methods
from autocut.stages.train import Teacher, kind_as_used, train_model
from autocut.task.batches import call
from autocut.task.check import faults_of
from autocut.task.task import Task

CLASSES = 3


def splits(make):
    """Train, validation and test, from `make(count, seed)`."""
    return {name: make(count, seed) for seed, (name, count) in enumerate({"train": 200, "validation": 90, "test": 60}.items())}


def measurements(count, seed):
    """Ten numbers, and one that depends on them."""
    rows = torch.randn(count, 10, generator=torch.Generator().manual_seed(seed))
    return rows, rows[:, 0] * rows[:, 1] + rows[:, 2]


def test_an_mse_loss_whose_targets_lack_a_dimension_is_refused():
    """It compares every output with every target, so the model learns the mean (pytorch/pytorch#16045)."""
    model = lambda: nn.Sequential(nn.Linear(10, 16), nn.SiLU(), nn.Linear(16, 1))  # noqa: E731
    task = Task(name="friedman", model=model, kind="regression", loss=nn.MSELoss(), **splits(measurements))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faults = faults_of(task)

    assert {fault.message for fault in faults} == {
        "task.loss must compare each output with its own target, got outputs (32, 1) and targets (32,), which broadcast to (32, 32)"
    }
    assert "squeeze" in faults[0].hint


def pictures(count, seed):
    """Noise around masks of three classes."""
    draw = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, CLASSES, (count, 8, 8), generator=draw)
    return masks[:, None].float() - 1 + 0.3 * torch.randn(count, 1, 8, 8, generator=draw), masks


def intersections_and_unions(outputs, targets):
    """(n, 2 * classes): for each picture and class the pixels in both masks, then those in any."""
    found, wanted = (nn.functional.one_hot(ids, CLASSES).flatten(1, 2).bool() for ids in (outputs.argmax(1), targets))
    return torch.cat([(found & wanted).sum(1), (found | wanted).sum(1)], dim=1).float()


def mean_iou(scores, targets):
    """Sums over the split first."""
    sums = scores.sum(axis=0)
    return float(np.mean(sums[:CLASSES] / np.maximum(sums[CLASSES:], 1)))


def picture_task(**options):
    """A network of one layer that answers for each pixel."""
    return Task(name="shapes", model=lambda: nn.Conv2d(1, CLASSES, 1), **splits(pictures), **options)


def test_a_mean_iou_made_of_counts_per_picture_works_and_is_that_of_the_kind():
    """`metric=` gives 2 x 3 numbers a picture, `summarize=` the IoU over the split (LBANN/lbann#479)."""
    own = picture_task(loss=nn.CrossEntropyLoss(), metric=intersections_and_unions, summarize=mean_iou)
    of_kind = picture_task(kind="segmentation", pretrained=False)
    assert faults_of(own) == faults_of(of_kind) == []

    model, other = own.build_model(), own.build_model(seed=1)
    found = {}
    for task in (own, of_kind):
        scores, baseline = (
            score_model(lambda inputs, net=net: call(net, inputs), task.loader(task.validation_data, 32), task.metric_kind)
            for net in (model, other)
        )
        assert scores.scores.shape == (90, 2 * CLASSES)
        found[task.kind] = to_accuracy("validation", scores, task.metric_kind, baseline)
    assert found["classification"] == found["segmentation"]
    assert found["segmentation"].metric.low < found["segmentation"].metric.value < found["segmentation"].metric.high


def documents(count, seed):
    """Six topics, any number of them at once."""
    rows = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))
    return rows, (rows[:, :6] > 0.4).float()


def f1(outputs, targets):
    """Of each example."""
    found, wanted = outputs > 0, targets > 0.5
    both, either = (found & wanted).sum(1), found.sum(1) + wanted.sum(1)
    return torch.where(either > 0, 2 * both / either.clamp(min=1), torch.ones(()))


def test_labels_with_a_loss_of_their_own_are_never_distilled_by_a_softmax():
    """The kind is the default one; the targets tell (sseung0703/KD_methods_with_TF#9)."""
    task = Task(name="topics", model=lambda: nn.Linear(12, 6), loss=nn.BCEWithLogitsLoss(), metric=f1, **splits(documents))
    assert faults_of(task) == []
    unfit = unfit_methods(task.kind, is_pretrained=False, kind=kind_as_used(task))["distill.loss"]
    assert unfit.keys() == {"kl", "kl_zscore", "dkd", "mse_logits", "mse"}

    teacher = Teacher(task.build_model(seed=1))
    with pytest.raises(InfeasibleRecipeError, match=r"got 'classification' with outputs \(2, 6\) and targets \(64, 6\)"):
        train_model(task.build_model(), task, {"train.epochs": 1, "distill.loss": "kl"}, teacher=teacher)
    train_model(task.build_model(), task, {"train.epochs": 1, "distill.loss": "kl_sigmoid"}, teacher=teacher)


def test_the_multilabel_kind_says_the_same_with_less_code():
    """Loss and metric are those that people write."""
    own = Task(name="topics", model=lambda: nn.Linear(12, 6), loss=nn.BCEWithLogitsLoss(), metric=f1, **splits(documents))
    of_kind = Task(name="topics", model=lambda: nn.Linear(12, 6), kind="multilabel", pretrained=False, **splits(documents))
    assert faults_of(of_kind) == []
    inputs, targets = next(iter(own.loader(own.validation_data, 32)))
    outputs = call(own.build_model(), inputs)

    torch.testing.assert_close(of_kind.metric_kind.loss(outputs, targets), own.metric_kind.loss(outputs, targets))
    torch.testing.assert_close(of_kind.metric_kind.scores(outputs, targets), own.metric_kind.scores(outputs, targets))
