"""Losses, scores and metrics of the kinds of task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, r2_score

from autocut.task.kinds import IGNORED, kinds
from autocut.task.kinds.language_modeling import unshifted_fault

EXAMPLES = {
    "classification": (torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])),
    "regression": (torch.randn(5, 1, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 1, 2, 1, 0])),
    "language_modeling": (torch.randn(5, 4, 7, generator=torch.Generator().manual_seed(0)), torch.arange(20).reshape(5, 4) % 7),
}


@pytest.mark.parametrize("name", kinds.names())
def test_a_kind_gives_a_scalar_loss_one_score_per_example_and_a_number(name):
    """What everything above relies on, whatever the kind."""
    kind, (outputs, targets) = kinds[name](), EXAMPLES[name]
    scores = kind.scores(outputs, targets)

    assert kind.loss(outputs, targets).shape == ()
    assert scores.shape == (5,)
    assert isinstance(kind.summarize(scores.numpy(), targets.numpy()), float)
    assert not kind.is_binary or set(scores.tolist()) <= {0.0, 1.0}
    assert kind.output_fault(outputs, targets) is None
    assert kind.target_fault(outputs, targets) is None
    assert isinstance(kind.chance(targets), float)


@pytest.mark.parametrize("name", kinds.names())
def test_a_kind_tells_outputs_of_a_wrong_shape(name):
    """Each fault names the shapes and has a hint."""
    fault = kinds[name]().output_fault(torch.zeros(4, 2, 2, 2), EXAMPLES[name][1])

    assert "(4, 2, 2, 2)" in fault.message
    assert fault.hint


def test_accuracy_is_the_share_of_right_classes():
    """As scikit-learn counts it."""
    outputs, targets = EXAMPLES["classification"]
    kind = kinds["classification"]()

    assert kind.summarize(kind.scores(outputs, targets).numpy(), targets.numpy()) == pytest.approx(
        accuracy_score(targets, outputs.argmax(1))
    )


@given(st.lists(st.tuples(st.floats(-10, 10, width=16), st.floats(-10, 10, width=16)), min_size=2, max_size=20))
def test_r2_is_that_of_scikit_learn(pairs):
    """Constant targets included, where R2 has no variance to explain."""
    predicted, wanted = torch.tensor(pairs).double().unbind(1)
    kind = kinds["regression"]()
    r2 = kind.summarize(kind.scores(predicted, wanted).numpy(), wanted.numpy())

    assert r2 == pytest.approx(r2_score(wanted, predicted), rel=1e-6, abs=1e-6)


def test_ignored_tokens_count_nowhere():
    """Padding may not raise or lower the accuracy of a sequence."""
    outputs = torch.nn.functional.one_hot(torch.tensor([[1, 2, 3], [1, 2, 3]]), 5).float()
    targets = torch.tensor([[1, 2, IGNORED], [1, 0, IGNORED]])

    assert kinds["language_modeling"]().scores(outputs, targets).tolist() == [1.0, 0.5]


def test_targets_that_are_the_inputs_are_told():
    """Hugging Face's models shift inside; here the copy would be learned. Padding and a second input do not hide it."""
    tokens = torch.arange(12).reshape(2, 6)
    labels = tokens.clone()
    labels[0, 4:] = IGNORED
    fault = unshifted_fault({"attention_mask": torch.ones_like(tokens), "input_ids": tokens}, labels)

    assert "those of input_ids themselves" in fault.message
    assert "tokens[:, 1:]" in fault.hint


def test_shifted_targets_and_repeated_tokens_are_let_pass():
    """Rows of one token look the same whether they are shifted or not."""
    tokens = torch.arange(12).reshape(2, 6)

    assert unshifted_fault(tokens[:, :-1], tokens[:, 1:]) is None
    assert unshifted_fault(torch.ones(2, 5), torch.ones(2, 5)) is None


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_out_of_range_is_told_with_its_value(wrong):
    """Cross entropy would crash, or read beyond its table on some devices."""
    fault = kinds["classification"]().target_fault(torch.zeros(2, 3), torch.tensor([0, 1, wrong]))

    assert f"0..2 for a model with 3 outputs, got {wrong}" in fault.message


def test_constant_targets_are_told():
    """R2 of them means nothing."""
    assert "must vary" in kinds["regression"]().target_fault(torch.zeros(2), torch.ones(4)).message
    assert np.isclose(kinds["regression"]().summarize(np.zeros(4), np.ones(4)), 1.0)
