"""Losses, scores and metrics of the kinds of task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, mean_absolute_error, r2_score, root_mean_squared_error

from autocut.task.kinds import IGNORED, Meaning, kinds
from autocut.task.kinds.language_modeling import unshifted_fault

LABELS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 0, 0]])
NUMBERS = (torch.randn(5, 1, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 1, 2, 1, 0]))
TOKENS = (torch.randn(5, 4, 7, generator=torch.Generator().manual_seed(0)), torch.arange(20).reshape(5, 4) % 7)
EXAMPLES = {
    "classification": (torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])),
    "regression": NUMBERS,
    "rmse": NUMBERS,
    "mae": NUMBERS,
    "language_modeling": TOKENS,
    "perplexity": TOKENS,
    "multilabel": (torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), LABELS),
    "segmentation": (torch.randn(5, 3, 2, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40).reshape(5, 2, 4) % 3),
}


@pytest.mark.parametrize("name", kinds.names())
def test_a_kind_gives_a_scalar_loss_scores_per_example_and_a_number(name):
    """What everything above relies on, whatever the kind."""
    kind, (outputs, targets) = kinds[name](), EXAMPLES[name]
    scores = kind.scores(outputs, targets)

    assert kind.loss(outputs, targets).shape == ()
    assert len(scores) == 5
    torch.testing.assert_close(kind.scores(outputs[:2], targets[:2]), scores[:2])
    assert isinstance(kind.summarize(scores.numpy(), targets.numpy()), float)
    assert not kind.is_binary or set(scores.tolist()) <= {0.0, 1.0}
    assert kind.output_fault(outputs, targets) is None
    assert kind.target_fault(outputs, targets) is None
    assert isinstance(kind.chance(targets), float)
    assert kind.meaning is not Meaning.UNKNOWN
    assert kind.logits_shape is None or outputs.dim() == len(kind.logits_shape)


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


def test_constant_targets_leave_r2_a_number():
    """The check refuses them; a batch may have them."""
    assert np.isclose(kinds["regression"]().summarize(np.zeros(4), np.ones(4)), 1.0)


def metric_of(name, outputs, targets):
    """The metric of a split that is one batch."""
    kind = kinds[name]()
    return kind.summarize(kind.scores(outputs, targets).double().numpy(), targets.numpy())


@given(st.lists(st.tuples(st.floats(-10, 10, width=16), st.floats(-10, 10, width=16)), min_size=1, max_size=20))
def test_rmse_and_mae_are_those_of_scikit_learn_with_a_minus(pairs):
    """The minus makes higher better."""
    predicted, wanted = torch.tensor(pairs).double().unbind(1)

    assert metric_of("rmse", predicted, wanted) == pytest.approx(-root_mean_squared_error(wanted, predicted))
    assert metric_of("mae", predicted, wanted) == pytest.approx(-mean_absolute_error(wanted, predicted))


@pytest.mark.parametrize("name", ["mae", "rmse", "multilabel", "perplexity", "segmentation"])
def test_chance_is_the_metric_of_a_constant_answer(name):
    """The best one, found by trying them all."""
    _, targets = EXAMPLES[name]
    match name:
        case "mae" | "rmse":
            answers = [torch.full((5,), value) for value in torch.linspace(0, 2, 201)]
        case "multilabel":
            answers = [torch.tensor([[a, b, c]] * 5) - 0.5 for a in (0, 1) for b in (0, 1) for c in (0, 1)]
        case "perplexity":
            answers = [(torch.bincount(targets.flatten()) / 20).log().expand(5, 4, 7)]
        case "segmentation":
            answers = [torch.eye(3)[chosen].view(1, 3, 1, 1).expand(5, 3, 2, 4) for chosen in range(3)]
    best = max(metric_of(name, answer, targets) for answer in answers)

    assert kinds[name]().chance(targets) == pytest.approx(best, abs=1e-6)


@given(st.lists(st.tuples(*[st.booleans()] * 6), min_size=1, max_size=12))
def test_f1_per_example_is_that_of_scikit_learn(rows):
    """An example without labels for which none is found is right."""
    found, wanted = torch.tensor(rows).int().split(3, dim=1)
    expected = f1_score(wanted, found, average="samples", zero_division=1.0)

    assert metric_of("multilabel", found - 0.5, wanted) == pytest.approx(expected)


def test_labels_that_are_neither_0_nor_1_are_told():
    """A class id among them is a task of another kind."""
    assert (
        "must be 0 or 1 for kind 'multilabel', got 2" in kinds["multilabel"]().target_fault(None, torch.tensor([0, 2, 1])).message
    )


@pytest.mark.parametrize("name", ["language_modeling", "perplexity", "segmentation"])
def test_targets_that_are_all_ignored_are_told(name):
    """The loss would be NaN, and nobody would look at the targets."""
    outputs, targets = EXAMPLES[name]

    assert "got -100 everywhere" in kinds[name]().target_fault(outputs, torch.full_like(targets, IGNORED)).message


def test_mean_iou_sums_over_the_split_before_it_divides():
    """As scikit-learn does over all pixels; pixels that are ignored and classes that never occur do not count."""
    outputs, targets = torch.randn(6, 4, 5, 5), torch.randint(0, 3, (6, 5, 5))
    outputs[:, 3] = -100.0
    targets[0, :3] = IGNORED
    counted = targets != IGNORED
    expected = jaccard_score(targets[counted], outputs.argmax(1)[counted], average="macro")

    assert metric_of("segmentation", outputs, targets) == pytest.approx(expected)
    scores = kinds["segmentation"]().scores(outputs, targets)
    assert scores.shape == (6, 8)
    assert kinds["segmentation"]().loss(outputs, targets).isfinite()


def test_a_map_of_another_size_than_the_targets_is_told():
    """Many networks answer at a quarter of the size."""
    fault = kinds["segmentation"]().output_fault(torch.zeros(2, 3, 4, 4), torch.zeros(2, 8, 8))

    assert "got (2, 3, 4, 4) and (2, 8, 8)" in fault.message
    assert "interpolate" in fault.hint


def test_negative_perplexity_is_minus_the_exponential_of_the_loss_per_token():
    """Over the tokens of the whole split: a short sequence does not weigh as much as a long one."""
    outputs, targets = torch.randn(4, 6, 9), torch.randint(0, 9, (4, 6))
    targets[0, 1:] = IGNORED
    loss = kinds["perplexity"]().loss(outputs, targets)

    assert metric_of("perplexity", outputs, targets) == pytest.approx(-float(loss.exp()), rel=1e-5)
    assert np.isfinite(metric_of("perplexity", 1e4 * outputs, targets))


def test_a_masked_logit_of_a_token_that_does_not_count_harms_no_score():
    """Minus infinity says "never"."""
    outputs = torch.tensor([[[0.0, -torch.inf], [0.0, 0.0]]])
    targets = torch.tensor([[IGNORED, 1]])

    assert metric_of("perplexity", outputs, targets) == pytest.approx(-2)
