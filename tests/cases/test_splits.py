"""Tasks as people write them, with the faults that they reported: augmentation, and a test split of another shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from autocut.task.check import faults_of
from autocut.task.task import Task


class Digits(Dataset):
    """Pictures that are shifted at random where `shift` is not 0."""

    def __init__(self, seed, shift=0, order=None):
        self.images = torch.randn(90, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.labels = torch.arange(90) % 10
        if order is not None:
            self.images, self.labels = self.images[order], self.labels[order]
        self.shift = shift

    def __len__(self):
        """Number of pictures."""
        return len(self.labels)

    def __getitem__(self, index):
        """One picture and its class."""
        image = self.images[index]
        if self.shift:
            image = image.roll(tuple(torch.randint(-self.shift, self.shift + 1, (2,)).tolist()), dims=(1, 2))
        return image, self.labels[index]


def digits(**options):
    """A task whose training set augments."""
    model = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # noqa: E731
    return Task(**{"name": "digits", "model": model, "train": Digits(0, shift=2), "test": Digits(1), **options})


def test_validation_split_off_an_augmenting_train_is_refused_with_what_to_write():
    """The user gave no validation, so the fault is not told of it alone (pytorch/pytorch#56886)."""
    (fault,) = faults_of(digits())

    assert "task.train, off which validation is split, must give the same examples each time" in fault.message
    assert "train_eval=" in fault.hint
    assert "validation=" in fault.hint


def test_train_eval_gives_a_validation_split_without_augmentation_and_without_the_examples_of_train():
    """The examples that train keeps are augmented as before."""
    task = digits(train_eval=Digits(0))
    assert faults_of(task) == []

    images, plain = task.train.images, Digits(0).images
    (validation, _), (again, _) = (next(iter(task.loader(task.validation_data, 90))) for _ in range(2))
    assert torch.equal(validation, again)
    assert torch.equal(validation, plain[task.validation_data.indices])
    assert sorted([*task.train_data.indices, *task.validation_data.indices]) == list(range(len(images)))
    (first, _), (second, _) = (next(iter(task.loader(task.train_data, 72))) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_eval": Digits(0, shift=1)}, "task.train_eval, off which validation is split, must give the same examples"),
        (
            {"train_eval": TensorDataset(torch.zeros(80, 1, 8, 8), torch.zeros(80))},
            "task.train_eval must hold the 90 examples of train",
        ),
        ({"train_eval": Digits(0, order=torch.arange(90).flip(0))}, "train_eval must hold the examples of train in the same order"),
        ({"train_eval": Digits(0), "validation": Digits(2)}, "must be left out where task.validation is given"),
        ({"train_eval": lambda: 1 / 0}, "task.train_eval must give a dataset, got ZeroDivisionError"),
    ],
    ids=["augments too", "other length", "other order", "not used", "fails"],
)
def test_a_train_eval_that_is_not_the_examples_of_train_is_told(options, message):
    """A shifted order would leave examples of train in validation."""
    faults = faults_of(digits(**options))

    assert message in faults[0].message
    assert all(fault.hint for fault in faults)


def sentences(count, seed, length, dtype=torch.long):
    """Texts that are padded to one length."""
    tokens = torch.randint(0, 20, (count, length), generator=torch.Generator().manual_seed(seed)).to(dtype)
    return TensorDataset(tokens, tokens[:, 0].long() % 3)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (sentences(60, 1, 22), "task's input_0 must have one shape beyond the batch, got (.., 30) in train and (.., 22) in test"),
        (sentences(60, 1, 30, torch.int32), "task's input_0 must have one dtype, got int64 in train and int32 in test"),
        (sentences(60, 1, 30), None),
    ],
    ids=["shape", "dtype", "good"],
)
def test_a_locked_test_split_of_another_form_is_told_before_the_search(test, message):
    """Exports fix the form, so that every point would fail when it is finalized (facebookresearch/esm#61)."""
    task = Task(name="padded", model=lambda: nn.EmbeddingBag(20, 3), train=sentences(300, 0, 30), test=test, pretrained=False)
    faults = faults_of(task)

    assert [fault.message for fault in faults] == ([] if message is None else [message])


def test_the_lock_gives_forms_and_no_values():
    """Only shapes and dtypes leave."""
    task = digits(train=Digits(0))
    forms = task.locked_test.input_forms(16)

    assert forms == [{"input_0": ((1, 8, 8), torch.float32)}] * 2
