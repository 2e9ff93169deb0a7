"""The study of the Adult table."""

from __future__ import annotations

import pytest
import torch

from autocut.errors import TaskError
from autocut.task.batches import call

ROW = (
    "{age}, {work}, 77516, Bachelors, {age}, Never-married, Sales, Not-in-family, White, Male, {gain}, {age}, {age}, "
    "United-States, {income}"
)


def write_people(path, rows):
    """Write rows of the published table."""
    path.write_text("\n".join(ROW.format(age=age, work=work, gain=gain, income=income) for age, work, gain, income in rows))


@pytest.fixture(name="small")
def _small(tmp_path, monkeypatch, study_task):
    """The task on made-up people; the test file has a class of work that the training file lacks, and points after its labels."""
    train = [
        (20 + number % 40, "Private" if number % 3 else "?", number % 2 * 5000, ">50K" if number % 4 == 0 else "<=50K")
        for number in range(40)
    ]
    write_people(tmp_path / "adult-train.csv", train)
    write_people(tmp_path / "adult-test.csv", [(30, "Private", 0, "<=50K."), (31, "Never-worked", 0, ">50K.")])
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    return study_task("adult")


def test_examples_are_mappings_of_numbers_and_codes(small):
    """Numbers have mean 0, a missing value has a code of its own, and a row by itself is that of the batch."""
    inputs, targets = next(iter(small.loader(small.train(), 40)))
    one = small.train()[3]

    assert {name: tuple(part.shape) for name, part in inputs.items()} == {"numbers": (40, 5), "codes": (40, 7)}
    assert inputs["codes"][:3, 0].tolist() == [1, 0, 0]
    assert abs(float(inputs["numbers"][:, 0].mean())) < 1e-5
    assert targets[:5].tolist() == [1, 0, 0, 0, 1]
    assert all(torch.equal(one[name], part[3]) for name, part in {**inputs, "labels": targets}.items())
    assert call(small.build_model(), inputs).shape == (40, 2)


def test_the_test_split_is_coded_as_the_training_split(small):
    """A value that the training file lacks has the code of a missing one; labels with a point are read too."""
    from autocut.task.finalization_key import issue_finalization_key

    people = small.locked_test.open(issue_finalization_key("a test"))

    assert people.parts["codes"][:, 0].tolist() == [0, 1]
    assert people.parts["labels"].tolist() == [0, 1]


def test_a_folder_without_the_table_is_refused(tmp_path, monkeypatch, study_task):
    """The message names the file."""
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"adult-train\.csv"):
        _ = study_task("adult").train_data
