"""The identity of the data: what changes it, what does not, and what reading it may take."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from autocut.errors import StudyError, TaskError
from autocut.task import data_identity
from autocut.task.data_identity import Reading, identify, identify_as_begun, plan_readings, reading_notes
from autocut.task.task import Task

COUNT = 2000


class Items(Dataset):
    """Examples that are read one by one. Their targets stand in no attribute."""

    def __init__(self, inputs, targets):
        self.pairs = list(zip(inputs, targets, strict=True))

    def __len__(self):
        """Number of examples."""
        return len(self.pairs)

    def __getitem__(self, index):
        """One example."""
        return self.pairs[index]


class Labelled(Items):
    """Examples whose targets stand in `targets`, as those of torchvision's datasets do."""

    def __init__(self, inputs, targets):
        super().__init__(inputs, targets)
        self.targets = targets.tolist()


class Slow(Labelled):
    """Examples that take long to read, as pictures do."""

    def __getitem__(self, index):
        """One example."""
        time.sleep(0.002)
        return super().__getitem__(index)


class Augmented(Dataset):
    """Another dataset with noise, drawn from the global generator."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        """Number of examples."""
        return len(self.source)

    def __getitem__(self, index):
        """One example."""
        inputs, target = self.source[index]
        return inputs + torch.randn(()), target


class Pictures(Labelled):
    """Examples that name a file each, as torchvision's image folders do."""

    def __init__(self, inputs, targets, files):
        super().__init__(inputs, targets)
        self.samples = [(str(file), 0) for file in files]


def columns(count=COUNT):
    """Inputs and targets of a split."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def task_of(train, validation=None):
    """A task with these splits."""
    given = TensorDataset(*columns(300)) if validation is None else validation
    return Task(name="t", model=lambda: nn.Linear(4, 3), train=train, validation=given, test=TensorDataset(*columns(50)))


def digest(*splits):
    """The identity of splits, as a new study finds it."""
    task = task_of(*splits)
    return identify(task, plan_readings(task)).digest


@pytest.mark.parametrize("form", [TensorDataset, Items, Labelled, lambda *parts: Augmented(Labelled(*parts))])
@pytest.mark.parametrize("position", [0, 777, COUNT - 1])
def test_a_relabelled_example_is_seen_wherever_it_stands(form, position):
    """A sample of 256 examples misses most of them, and models trained on the old labels were reused."""
    inputs, targets = columns()
    changed = targets.clone()
    changed[position] = (changed[position] + 1) % 3

    assert digest(form(inputs, changed)) != digest(form(inputs, targets))


@pytest.mark.parametrize("form", [TensorDataset, Items, Labelled])
def test_another_order_is_seen(form):
    """A curriculum and a seeded shuffle give other batches then."""
    inputs, targets = columns()
    order = torch.arange(COUNT)
    order[[1001, 1002]] = order[[1002, 1001]]
    targets[1001], targets[1002] = 0, 1

    assert digest(form(inputs[order], targets[order])) != digest(form(inputs, targets))


@pytest.mark.parametrize("form", [TensorDataset, Items, Labelled])
def test_the_same_data_have_the_same_identity_and_all_of_validation_counts(form):
    """Validation chooses, so not one of its inputs may change."""
    inputs, targets = columns()
    other = inputs.clone()
    other[777, 2] += 1

    first, again, changed = (digest(TensorDataset(*columns()), form(given, targets)) for given in (inputs, inputs.clone(), other))
    assert first == again != changed


def test_random_augmentation_of_train_changes_nothing():
    """Each process would find another task, and no stage of another."""
    assert digest(Augmented(Items(*columns()))) == digest(Augmented(Items(*columns())))


def test_targets_are_those_of_the_split_and_not_of_all_that_it_was_taken_from():
    """A validation split of its own makes train a `Subset`."""
    inputs, targets = columns()
    changed = targets.clone()
    changed[7] = (changed[7] + 1) % 3
    first, rest = range(100), range(100, COUNT)

    assert digest(Subset(Labelled(inputs, changed), rest)) == digest(Subset(Labelled(inputs, targets), rest))
    assert digest(Subset(Labelled(inputs, changed), first)) != digest(Subset(Labelled(inputs, targets), first))


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "cäsar"],
        np.array([0.5, 1.0, 2.0]),
        torch.tensor([[0, 1], [1, 0], [1, 1]]),
        (1, 2, 3),
        [[1, 2], [0, 1], [1, 1]],
    ],
)
def test_targets_in_an_attribute_have_many_forms(labels):
    """Names, numbers, several labels each."""
    given = Labelled(*columns(3))
    given.targets = labels
    found = data_identity._labels(given)

    assert found is not None
    assert len(found) == 3


@pytest.mark.parametrize("labels", [None, [[1], [1, 2], []], lambda: [1, 2, 3], [1, 2], [{"boxes": 1}] * 3])
def test_an_attribute_that_holds_no_targets_is_not_believed(labels):
    """Then the examples are read."""
    given = Labelled(*columns(3))
    given.targets = labels

    assert data_identity._labels(given) is None


def test_what_takes_long_is_read_in_part_and_told(monkeypatch):
    """A start must not decode every picture; the targets are known all the same."""
    monkeypatch.setattr(data_identity, "_READ_S", 0.2)
    task = task_of(Slow(*columns()), Slow(*columns(400)))
    readings = plan_readings(task)

    assert readings["train"] == Reading(0, inputs=False, labels=True, files=True)
    assert readings["validation"].examples < 400
    assert readings["validation"].labels
    [note] = reading_notes(task, readings)
    assert "of 400 validation examples and all targets are hashed" in note


def test_rehash_reads_everything_however_long_it_takes(monkeypatch):
    """A changed input of train is seen then, too."""
    monkeypatch.setattr(data_identity, "_READ_S", 0.0)
    inputs, targets = columns(300)
    other = inputs.clone()
    other[77, 2] += 1
    found = []
    for given in (inputs, other):
        task = task_of(Labelled(given, targets))
        readings = plan_readings(task, rehash=True)
        assert reading_notes(task, readings) == ()
        found.append(identify(task, readings).digest)

    assert found[0] != found[1]


@pytest.fixture
def pictures(tmp_path):
    """A split with ten files that were written long ago."""
    files = [tmp_path / f"{position}.png" for position in range(10)]
    for file in files:
        file.write_text("picture")
        os.utime(file, (1e9, 1e9))
    return lambda: Pictures(*columns(10), files)


@pytest.mark.parametrize("change", [lambda file: os.utime(file, (1e9, 1e9 + 1)), lambda file: file.write_text("other picture")])
def test_a_changed_file_of_train_is_seen_by_its_size_or_time(pictures, tmp_path, change):
    """Reading all files of a large data set would take minutes at each start."""
    task = task_of(pictures())
    begun = identify(task, plan_readings(task))
    change(tmp_path / "7.png")

    with pytest.raises(StudyError, match="made with other data: the files of train have changed") as caught:
        identify_as_begun(task_of(pictures()), tmp_path, begun.facts)
    assert "cp -p" in caught.value.hint


def test_a_file_that_loading_may_write_identifies_nothing(pictures, tmp_path):
    """A cache that is written at each start would end every study."""
    (tmp_path / "7.png").write_text("new")

    assert not plan_readings(task_of(pictures()))["train"].files


def test_the_files_of_joined_data_sets_count(pictures):
    """`ConcatDataset` holds a list of data sets."""
    assert len(data_identity._files(ConcatDataset([pictures(), Labelled(*columns(3))]))) == 10


def test_of_a_million_files_some_are_looked_at(pictures, monkeypatch):
    """The same ones each time, from the first to the last."""
    monkeypatch.setattr(data_identity, "_MOST_FILES", 4)

    assert [file.name for file in data_identity._files(pictures())] == ["0.png", "3.png", "6.png", "9.png"]


def test_files_of_names_below_a_folder_are_found(tmp_path):
    """Names relative to the working directory are not: it differs between processes."""
    (tmp_path / "a.png").write_text("picture")
    given = Labelled(*columns(3))
    given.root, given.names, given.texts = str(tmp_path), ["a.png", "gone.png"], ["a.", "b", "c"]

    assert data_identity._files(given) == [tmp_path / "a.png"]
    given.root = "."
    assert data_identity._files(given) == []


def test_a_study_goes_on_with_what_was_read_when_it_was_begun(monkeypatch, tmp_path):
    """A faster or slower machine would decide otherwise, and find another hash."""
    task = task_of(Items(*columns()))
    begun = identify(task, plan_readings(task))
    monkeypatch.setattr(data_identity, "_READ_S", 0.0)

    assert plan_readings(task) != begun.readings
    again = identify_as_begun(task, tmp_path, begun.facts)
    assert again is not None
    assert again.digest == begun.digest


def test_what_has_changed_is_named(tmp_path):
    """The user must find it."""
    inputs, targets = columns()
    task = task_of(Items(inputs, targets))
    begun = identify(task, plan_readings(task)).facts

    with pytest.raises(StudyError, match="the targets of train have changed"):
        identify_as_begun(task_of(Items(inputs, targets.flip(0))), tmp_path, begun)


def test_a_study_of_an_earlier_version_keeps_its_fingerprint(tmp_path):
    """Its stages have it in their keys."""
    task = task_of(TensorDataset(*columns()))
    before = task.fingerprint
    task.know_data("more")

    assert task.fingerprint != before
    assert identify_as_begun(task, tmp_path, {"seed": 0}) is None
    task.know_data("")
    assert task.fingerprint == before


def test_rehash_needs_a_study_that_was_begun_so(tmp_path):
    """There is nothing to compare with otherwise."""
    task = task_of(Items(*columns()))
    whole = identify(task, plan_readings(task, rehash=True))

    for facts in ({}, identify(task, plan_readings(task)).facts):
        with pytest.raises(StudyError, match="begun without --rehash"):
            identify_as_begun(task, tmp_path, facts, rehash=True)
    assert identify_as_begun(task, tmp_path, whole.facts, rehash=True) == whole


def test_data_that_cannot_be_read_is_an_error_that_names_the_split():
    """No traceback of the user's dataset."""
    broken = [(torch.zeros(4), 0)] * 5 + [(torch.zeros(4), object())]
    with pytest.raises(TaskError, match=r"task\.validation must give batches, got RuntimeError"):
        plan_readings(task_of(Items(*columns(5)), broken))
