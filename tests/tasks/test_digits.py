"""The embedded task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from autocut.task.check import faults_of
from autocut.task.finalization_key import issue_finalization_key
from autocut.task.loading import load_task
from autocut.tasks import digits


@pytest.fixture(name="task", scope="module")
def _task():
    """The digits."""
    return load_task(None)


def test_every_digit_is_in_exactly_one_split(task):
    """1,797 of them; validation and test are 20% each."""
    test = task.locked_test.open(issue_finalization_key("a test"))
    assert [len(split) for split in (task.train_data, task.validation_data, test)] == [1077, 360, 360]


def test_its_data_are_those_of_scikit_learn():
    """Read from the same file, without the import."""
    pixels, found = digits._read()
    expected = load_digits()

    np.testing.assert_array_equal(pixels, expected.images)
    np.testing.assert_array_equal(found, expected.target)


def test_it_has_no_faults(task):
    """A newcomer's first search starts from it."""
    assert faults_of(task) == []


def test_its_network_learns_within_seconds(task):
    """Over 95% after two passes; the whole training gives 99%."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = task.build_model().train()
    optimizer = task.build_optimizer(model.parameters())
    for epoch in range(2):
        for inputs, targets in task.loader(task.train_data, task.batch_size, shuffle=True, seed=epoch):
            optimizer.zero_grad()
            task.metric_kind.loss(model(inputs), targets).backward()
            optimizer.step()
    model.eval()
    ((inputs, targets),) = task.loader(task.validation_data, 360)

    assert task.metric_kind.scores(model(inputs), targets).mean() > 0.95
    assert 50_000 < sum(parameter.numel() for parameter in model.parameters()) < 60_000
