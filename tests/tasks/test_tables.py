"""A task of a data frame: numbers are standardised, categories are codes, splits depend on the seed alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from autocut.errors import TaskError
from autocut.task.check import faults_of
from autocut.task.finalization_key import issue_finalization_key
from autocut.tasks import from_dataframe
from autocut.tasks.tables import Columns


class Net(nn.Module):
    """Embeds each category, and joins numbers and vectors."""

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(count, 2) for count in columns.categories.values())
        self.out = nn.Linear(len(columns.numbers) + 2 * len(columns.categories), columns.outputs)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Outputs (n, outputs)."""
        vectors = [embed(codes[:, index]) for index, embed in enumerate(self.embeddings)]
        return self.out(torch.cat([numbers, *vectors], dim=1))


@pytest.fixture(name="frame")
def _frame() -> pd.DataFrame:
    """Three hundred people."""
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, 300)
    return pd.DataFrame(
        {
            "age": age,
            "wage": rng.normal(3000, 900, 300),
            "town": rng.choice(["Bonn", "Aix", "Cork"], 300),
            "member": rng.random(300) > 0.5,
            "old": np.where(age > 50, "yes", "no"),
        }
    )


def test_a_classification_becomes_a_task_without_faults(frame):
    """Classes and categories are the sorted values of their columns."""
    task = from_dataframe(frame, "old", Net, name="people", pretrained=False)
    (numbers, codes), targets = next(iter(task.loader(task.train_data, 300)))

    assert faults_of(task) == []
    assert len(task.locked_test) == 60
    assert (numbers.dtype, codes.dtype, targets.dtype) == (torch.float32, torch.int64, torch.int64)
    assert [set(column.tolist()) for column in codes.T] == [{0, 1, 2}, {0, 1}]
    assert float(numbers.mean()) == pytest.approx(0, abs=0.2)


def test_a_number_becomes_a_regression(frame):
    """The target keeps its scale; a frame of numbers alone gives one tensor."""
    task = from_dataframe(
        frame[["age", "wage"]], "wage", lambda columns: nn.Linear(len(columns.numbers), 1), name="wages", kind="regression"
    )
    inputs, targets = next(iter(task.loader(task.train_data, 10)))

    assert inputs.shape == (10, 1)
    assert set(targets.tolist()) <= set(frame["wage"].astype(np.float32).tolist())


def test_the_test_rows_do_not_change_the_scale(frame):
    """Mean and deviation come from the training rows alone."""
    plain = from_dataframe(frame, "old", Net, name="people")
    frame.loc[~frame.index.isin(np.random.default_rng(0).permutation(300)[60:]), "wage"] *= 1000
    changed = from_dataframe(frame, "old", Net, name="people")

    (first, _), _ = next(iter(plain.loader(plain.train_data, 8)))
    (second, _), _ = next(iter(changed.loader(changed.train_data, 8)))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        ({}, "odl", "must be a column of the frame"),
        ({"wage": np.nan}, "old", "no missing values, got 300 in 'wage'"),
        ({"wage": np.inf}, "old", "finite numbers, got infinity in 'wage'"),
    ],
)
def test_a_frame_that_needs_a_decision_is_refused(frame, change, target, message):
    """What is missing means something that only the user knows."""
    with pytest.raises(TaskError, match=message) as caught:
        from_dataframe(frame.assign(**change), target, Net, name="people")
    assert caught.value.hint


def test_columns_of_one_name_are_refused(frame):
    """A join may leave two."""
    twice = pd.concat([frame, frame[["wage"]]], axis=1)
    with pytest.raises(TaskError, match="columns of different names"):
        from_dataframe(twice, "old", Net, name="people")


def test_a_constant_column_stays_small(frame):
    """Its deviation is a rounding error: divided by it, the one row that differs would be astronomical."""
    frame["rate"] = 0.1
    frame.loc[np.random.default_rng(0).permutation(300)[0], "rate"] = 0.2  # a row of test
    task = from_dataframe(frame, "old", Net, name="people")
    (numbers, _), _ = next(iter(task.loader(task.locked_test.open(issue_finalization_key("a test")), 60)))

    assert numbers[:, 2].max() == pytest.approx(0.1)


def test_train_keeps_a_row(frame):
    """However large the share of test is."""
    assert len(from_dataframe(frame[:2], "old", Net, name="people", test_share=0.9).locked_test) == 1


def test_words_are_no_target_of_a_regression(frame):
    """The hint names the kind that takes them."""
    with pytest.raises(TaskError, match="must be a number for kind 'regression'"):
        from_dataframe(frame, "town", Net, name="people", kind="regression")
