"""The teacher's logits, and the difficulty that they give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from autocut.errors import DeadlineError
from autocut.stages.train import Teacher, orders, score_difficulty, teacher, teacher_logits


class Jittered(TensorDataset):
    """Adds noise to every example that it reads."""

    def __getitem__(self, index):
        """Another view each time."""
        inputs, label = super().__getitem__(index)
        return inputs + 0.01 * torch.randn(8), label


def test_stored_logits_are_those_of_a_run(task):
    """One table for the whole training set, in its order."""
    model = task.build_model()
    logits = teacher_logits(model, task)
    inputs, _ = next(iter(task.loader(task.train_data, 97)))

    torch.testing.assert_close(logits, model(inputs).detach())
    indices = torch.tensor([5, 3])
    torch.testing.assert_close(
        Teacher(model, logits).logits_for(inputs[indices], indices), Teacher(model).logits_for(inputs[indices], indices)
    )


def test_augmented_data_get_no_table(make_task):
    """A teacher must see the view that the student sees."""
    task = make_task(train=Jittered(torch.randn(40, 8), torch.zeros(40, dtype=torch.long)))
    assert teacher_logits(task.build_model(), task) is None


def test_a_table_that_is_too_large_is_not_made(task, monkeypatch):
    """A vocabulary times every position would fill the disk."""
    monkeypatch.setattr(teacher, "LARGEST_TABLE_BYTES", 1000)
    assert teacher_logits(task.build_model(), task) is None


def test_sequences_of_free_length_get_no_table(make_task):
    """All batches may have one length in the order of the files, and others when they are shuffled."""
    sequences = TensorDataset(torch.randn(40, 5, 8), torch.zeros(40, 5, dtype=torch.long))
    task = make_task(train=sequences, model=lambda: nn.Linear(8, 3), dynamic={"input_0": {1: "length"}})
    assert teacher_logits(task.build_model(), task) is None


def test_running_the_teacher_stops_at_the_deadline(task):
    """Every stage consults the deadline itself."""
    with pytest.raises(DeadlineError):
        teacher_logits(task.build_model(), task, stop=lambda: True)


def test_difficulty_is_the_loss_of_each_example(task):
    """The same with stored logits as with a teacher that runs."""
    model = task.build_model()
    logits = teacher_logits(model, task)
    _, labels = next(iter(task.loader(task.train_data, 97)))
    difficulty = score_difficulty(Teacher(model, logits), task)

    np.testing.assert_allclose(difficulty, functional.cross_entropy(logits, labels, reduction="none").numpy(), rtol=1e-5)
    np.testing.assert_allclose(score_difficulty(Teacher(model), task), difficulty, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", orders.names())
def test_an_order_holds_every_example_once(name):
    """Nothing is lost, and the same generator gives the same order."""
    difficulty = np.random.default_rng(0).random(50)
    first, second = (orders[name](difficulty, np.random.default_rng(3)) for _ in range(2))

    assert sorted(first) == list(range(50))
    np.testing.assert_array_equal(first, second)


def test_easy_first_is_sorted_by_difficulty():
    """The smallest loss comes first."""
    assert orders["easy_first"](np.array([0.3, 0.1, 0.2]), np.random.default_rng(0)).tolist() == [1, 2, 0]
