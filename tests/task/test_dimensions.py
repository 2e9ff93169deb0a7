"""Dimensions that may differ between batches are named by the task; what does not fit the data is a fault."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autocut import Task
from autocut.task.check import faults_of
from autocut.task.dimensions import batch_faults, named_shape, setting_faults, sizes_of

LENGTH = {"ids": {1: "length"}, "mask": {1: "length"}}
BATCH = {"ids": torch.zeros(4, 7, dtype=torch.long), "mask": torch.ones(4, 7)}


class Bag(nn.Module):
    """The mean of word vectors: token ids (n, length) and their mask -> (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Padding does not count."""
        return (self.words(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def collate(items):
    """Pad to the longest of the batch."""
    texts, labels = zip(*items, strict=True)
    ids = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    return {"ids": ids, "mask": (ids > 0).float(), "labels": torch.tensor(labels)}


def texts(seed):
    """Sixty texts of 1 to 9 words."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 10, (60,), generator=generator).tolist()
    return [(torch.randint(1, 20, (length,), generator=generator), number % 3) for number, length in enumerate(lengths)]


def task_of(**settings):
    """A task on texts that are padded batch by batch."""
    return Task("texts", Bag, texts(0), texts(1), texts(2), collate=collate, pretrained=False, **settings)


def test_a_shape_has_names_for_what_is_free():
    """None is the batch, numbers stay fixed."""
    assert named_shape("ids", (4, 7), LENGTH) == (None, "length")
    assert named_shape("other", (4, 7), LENGTH) == (None, 7)
    assert sizes_of(LENGTH, BATCH) == {"length": 7}


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        (["ids"], "must map inputs"),
        ({"ids": "length"}, "['ids'] must map dimensions"),
        ({0: {1: "length"}}, "must name inputs, got 0"),
        ({"ids": {0: "batch"}}, "dimensions from 1 on, got 0"),
        ({"ids": {1: "a length"}}, "must be a name"),
    ],
)
def test_a_setting_of_another_form_is_a_fault(dynamic, message):
    """Each is told by what it should be."""
    (fault,) = setting_faults(dynamic)

    assert message in fault.message


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"idz": {1: "length"}}, "inputs of the model (ids, mask, short), got 'idz'"),
        ({"ids": {2: "length"}}, "dimensions below 2, got 2"),
        ({"ids": {1: "length"}, "short": {1: "length"}}, "one size within a batch, got 7 in ids and 5 in short"),
    ],
)
def test_a_name_that_does_not_fit_the_batch_is_a_fault(dynamic, message):
    """Inputs, dimensions and sizes of one name are compared with a real batch."""
    (fault,) = batch_faults(dynamic, {**BATCH, "short": torch.zeros(4, 5)})

    assert message in fault.message


def test_batches_may_differ_where_the_task_says_so():
    """The same data is a fault without `dynamic`, and the hint spells it."""
    (fault,) = faults_of(task_of())

    assert faults_of(task_of(dynamic=LENGTH)) == []
    assert 'dynamic={"ids": {1: "length"}}' in (fault.hint or "")


def test_only_a_task_with_free_dimensions_has_another_fingerprint():
    """Old studies are resumed: what is not set is not part of the key."""
    assert task_of().fingerprint == task_of(dynamic=None).fingerprint
    assert task_of().fingerprint != task_of(dynamic=LENGTH).fingerprint
