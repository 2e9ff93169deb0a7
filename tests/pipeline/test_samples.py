"""What is timed, and what calibrates: drawn from train, and of the lengths of real data where lengths are free."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocut import Task
from autocut.pipeline.samples import Samples

LENGTHS = (2, 3, 4, 5, 30)


def collate(items):
    """Pad to the longest of the batch."""
    ids, labels = zip(*items, strict=True)
    return {"ids": nn.utils.rnn.pad_sequence(list(ids), batch_first=True), "labels": torch.tensor(labels)}


@pytest.fixture(name="task")
def _task() -> Task:
    """Texts of five lengths, one of which is long."""
    texts = [(torch.ones(LENGTHS[number % 5], dtype=torch.long), number % 2) for number in range(100)]
    return Task("texts", nn.Identity, texts, texts, texts, collate=collate, batch_size=10, dynamic={"ids": {1: "length"}})


def test_a_single_input_has_the_median_length(task):
    """Not the padded maximum, and not whatever the first draw gives."""
    lengths = [Samples(task, seed).serving_inputs(1)["ids"].shape[1] for seed in range(5)]

    assert set(lengths) <= {3, 4, 5}


def test_a_batch_is_padded_among_its_own_examples(task):
    """Most batches of ten hold a long text; one of two seldom does."""
    samples = Samples(task, 0)

    assert samples.serving_inputs(10)["ids"].shape == (10, 30)
    assert samples.serving_inputs(2)["ids"].shape[1] < 30


def test_the_export_example_is_the_longest_batch(task):
    """Torch takes a length of 1 for a constant."""
    lengths = [inputs["ids"].shape[1] for inputs in Samples(task, 0).calibration]

    assert lengths[0] == max(lengths)
