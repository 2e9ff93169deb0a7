"""Loaders, and the lock on the test split."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import autocut
from autocut.errors import TaskError
from autocut.task.finalization_key import issue_finalization_key
from autocut.task.splits import FinalizationKey, Loader, LockedSplit, LockedSplitError, make_indices, spread, to_batch, to_dataset

X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10)


class Counting(TensorDataset):
    """Counts items that are read one by one."""

    reads = 0

    def __getitem__(self, index):
        """One item."""
        self.reads += 1
        return super().__getitem__(index)


class Batched(Dataset):
    """Returns whole batches itself."""

    def __len__(self):
        """Ten."""
        return 10

    def fetch_batch(self, indices):
        """Doubled inputs."""
        return X[indices] * 2, Y[indices]


def load(dataset, indices=None, batch_size=4, **options):
    """All batches as a list."""
    return list(Loader(dataset, batch_size, make_indices(len(dataset), indices, False, 0), **options))


def test_plain_tensors_are_indexed_batch_by_batch(monkeypatch):
    """A loop over items would cost more than a small model's training."""
    monkeypatch.setattr(TensorDataset, "__getitems__", None, raising=False)
    batches = load(Subset(TensorDataset(X, Y), [9, 8, 7, 6, 5]), indices=[0, 2, 4])

    assert [targets.tolist() for _, targets in batches] == [[9, 7, 5]]


def test_a_dataset_that_changes_its_items_is_read_item_by_item():
    """An augmentation in __getitem__ must not be bypassed."""
    dataset = Counting(X, Y)
    load(dataset)

    assert dataset.reads == 10


class HuggingFaceLike(Dataset):
    """Has the method `batch` of `datasets.Dataset`, which is another thing."""

    def __len__(self):
        """Ten."""
        return 10

    def __getitem__(self, index):
        """One item."""
        return {"x": X[index], "label": Y[index]}

    def batch(self, batch_size, drop_last_batch=False):
        """Rows of whole batches."""
        raise AssertionError


def test_a_method_batch_of_another_library_is_left_alone():
    """`datasets.Dataset.batch` takes a batch size, not indices."""
    inputs, targets = load(HuggingFaceLike())[0]

    assert torch.equal(inputs["x"], X[:4])
    assert torch.equal(targets, Y[:4])


def test_a_dataset_that_fetches_batches_is_asked_for_them():
    """Bytes that become floats a batch at a time keep memory low."""
    inputs, targets = load(Batched())[0]

    assert torch.equal(inputs, X[:4] * 2)
    assert torch.equal(targets, Y[:4])


def test_numbers_from_python_become_float32():
    """They collate to float64, which a float32 model refuses."""
    inputs, targets = load([(0.5, 1), (1.5, 0)])[0]

    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64


def test_shuffling_depends_on_the_seed_alone():
    """Resumed training must see the order that it would have seen."""
    orders = [make_indices(50, None, True, seed).tolist() for seed in (1, 1, 2)]

    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(50))


@pytest.mark.parametrize(
    ("collated", "kind_of_inputs"),
    [((X, Y), torch.Tensor), ([X, X, Y], tuple), (({"a": X}, Y), dict), ({"a": X, "b": X, "labels": Y}, dict)],
)
def test_a_batch_is_split_into_inputs_and_targets(collated, kind_of_inputs):
    """Pairs, longer tuples and mappings that name their targets."""
    inputs, targets = to_batch(collated)

    assert isinstance(inputs, kind_of_inputs)
    assert torch.equal(targets, Y)


def test_language_modeling_shifts_lone_tokens():
    """The targets of a text are its next tokens."""
    inputs, targets = to_batch(torch.arange(8).reshape(2, 4), shifts_tokens=True)

    assert inputs.tolist() == [[0, 1, 2], [4, 5, 6]]
    assert targets.tolist() == [[1, 2, 3], [5, 6, 7]]
    assert inputs.is_contiguous()
    assert targets.is_contiguous()


@pytest.mark.parametrize(
    "collated", [X, {"a": X}, (X, "cat"), ("text", Y), {"a": ["text"], "label": Y}, {"a": X, "label": ["cat"]}]
)
def test_a_batch_without_inputs_or_targets_is_refused_with_a_hint(collated):
    """The user learns what to return."""
    with pytest.raises(TaskError) as caught:
        to_batch(collated)
    assert caught.value.hint


def test_a_split_is_a_dataset_a_function_or_a_tuple_of_tensors():
    """Anything else is an error, such as an iterable without a length."""
    assert len(to_dataset((X, Y))) == len(to_dataset(lambda: TensorDataset(X, Y))) == 10
    with pytest.raises(TaskError, match="__len__ and __getitem__"):
        to_dataset(iter([1]))


def test_a_tuple_of_arrays_is_one_of_tensors():
    """Data of numpy and scikit-learn: ten examples, not two, and float64 is no dtype of a model."""
    inputs, target = to_dataset((X.double().numpy(), Y.numpy()))[3]

    assert torch.equal(inputs, X[3])
    assert inputs.dtype == torch.float32
    assert target == Y[3]


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (DataLoader(TensorDataset(X, Y), batch_size=4), "loader.dataset"),
        ("data/train.csv", "read the file"),
        (Path("data"), "read the file"),
        (SimpleNamespace(iloc=[], __getitem__=None, __len__=None), "from_dataframe"),
        ((X, Y[:9]), "one target for each input"),
        ((X, np.array(["cat"] * 10)), "return_inverse"),
    ],
)
def test_what_is_often_taken_for_a_dataset_has_a_hint_of_its_own(data, hint):
    """A path has a length and items too: its letters."""
    with pytest.raises(TaskError) as caught:
        to_dataset(data)
    assert hint in caught.value.hint


def test_spread_indices_reach_from_end_to_end():
    """Data may be sorted by class, so a sample of its start would miss classes."""
    assert spread(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread(101, 3).tolist() == [0, 50, 100]


@pytest.fixture(name="locked")
def _locked():
    """Ten examples under lock."""
    return LockedSplit(lambda: TensorDataset(X, Y), partial(_loader))


def _loader(dataset, batch_size):
    return Loader(dataset, batch_size, torch.arange(len(dataset)))


@pytest.mark.parametrize("read", [lambda split: split[0], iter, lambda split: split.open("please"), lambda split: split.open(None)])
def test_nothing_reads_a_locked_split_without_a_key(locked, read):
    """The best of many trials on the test split would look better than it is."""
    with pytest.raises(LockedSplitError):
        read(locked)


def test_a_key_opens_a_locked_split(locked):
    """Finalization reads the examples."""
    assert torch.equal(locked.open(issue_finalization_key("a test")).tensors[1], Y)


def test_a_key_is_made_in_one_place_only():
    """Building one by hand is refused."""
    with pytest.raises(LockedSplitError, match="issue_finalization_key"):
        FinalizationKey("by hand", object())


def test_only_deploy_makes_keys():
    """The code makes it true that nothing before finalization reads test: no other module names the key's maker or its seal."""
    package = Path(autocut.__file__).parent
    using = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(
            r"^\s*(from|import) .*(finalization_key|_SEAL)|import_module\(.*finalization_key", file.read_text(), re.MULTILINE
        )
    }

    assert {name for name in using if not name.startswith("deploy/")} <= {"task/finalization_key.py"}


def test_the_fingerprint_of_a_locked_split_changes_with_its_inputs_and_targets(locked):
    """Scores on the test split are kept for as long as it is the same."""
    fingerprints = [
        LockedSplit(lambda x=x, y=y: TensorDataset(x, y), _loader).fingerprint for x, y in ((X, Y), (X + 1, Y), (X, Y.flip(0)))
    ]

    assert fingerprints[0] == locked.fingerprint
    assert len(set(fingerprints)) == 3


def test_hashes_of_a_locked_split_tell_inputs_apart_and_no_targets(locked):
    """They serve to find overlaps; other targets give the same hashes."""
    hashes = locked.input_hashes()
    others = LockedSplit(lambda: TensorDataset(X, Y + 1), _loader).input_hashes()

    assert len(set(hashes.tolist())) == len(locked) == 10
    assert hashes.tolist() == others.tolist()
