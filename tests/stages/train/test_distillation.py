"""Distillation losses against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from autocut.errors import InfeasibleRecipeError
from autocut.stages.methods import fitting_kinds
from autocut.stages.train import check_distillation, distillations
from autocut.task.kinds import Meaning, kinds

logits = npst.arrays(np.float64, (3, 5), elements=st.floats(-8, 8))
temperatures = st.floats(0.5, 20)
teaching = pytest.mark.parametrize("name", [name for name in distillations.names() if name != "none"])
over_classes = pytest.mark.parametrize("name", [loss.name for loss in distillations if loss.options.meaning is Meaning.CLASSES])
CLASS_LOSSES = {loss.name for loss in distillations if loss.options.meaning is Meaning.CLASSES}
IDS = torch.tensor([0, 1, 1, 0])
TARGETS = {
    "classification": IDS,
    "language_modeling": IDS[:, None].expand(4, 6),
    "perplexity": IDS[:, None].expand(4, 6),
    "segmentation": IDS[:, None, None].expand(4, 3, 2),
    "multilabel": torch.tensor([[0.0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]]),
    "regression": torch.arange(8.0).reshape(4, 2),
    "rmse": torch.arange(4.0),
    "mae": torch.arange(4.0),
}
OUTPUTS = {
    "classification": (4, 3),
    "language_modeling": (4, 6, 5),
    "perplexity": (4, 6, 5),
    "segmentation": (4, 5, 3, 2),
    "multilabel": (4, 3),
    "regression": (4, 2),
    "rmse": (4, 1),
    "mae": (4,),
}


def distill(name: str, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Call a loss; the targets, where it needs them, are what the teacher says."""
    targets = (teacher.argmax(-1),) if distillations.method(name).options.needs_targets else ()
    return distillations[name](student, teacher, temperature, *targets)


def softmax(values: np.ndarray) -> np.ndarray:
    """Rows that sum to one."""
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def kl(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    """T squared times the mean over rows of sum p log(p / q)."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum(1).mean())


def standardize(values: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and sample deviation 1."""
    return (values - values.mean(1, keepdims=True)) / np.maximum(values.std(1, ddof=1, keepdims=True), 1e-7)


@given(logits, logits, temperatures)
def test_kl_is_what_hinton_wrote(student, teacher, temperature):
    """The oracle is the formula in numpy."""
    loss = distillations["kl"](torch.tensor(student), torch.tensor(teacher), temperature)
    assert float(loss) == pytest.approx(kl(student, teacher, temperature), rel=1e-6, abs=1e-9)


@given(logits, logits, temperatures)
def test_kl_zscore_is_kl_of_standardized_logits(student, teacher, temperature):
    """The oracle is the formula in numpy."""
    # Rows that are constant up to rounding have no direction: numpy and torch round them differently.
    student, teacher = student + np.arange(5) * 1e-2, teacher + np.arange(5) * 1e-2
    if min(student.std(1).min(), teacher.std(1).min()) < 1e-4:
        return
    loss = distillations["kl_zscore"](torch.tensor(student), torch.tensor(teacher), temperature)
    assert float(loss) == pytest.approx(kl(standardize(student), standardize(teacher), temperature), rel=1e-5, abs=1e-8)


@given(logits, logits, temperatures)
def test_kl_sigmoid_is_the_mean_divergence_of_each_label(student, teacher, temperature):
    """The oracle is the formula in numpy, of two probabilities a label."""
    p, q = (1 / (1 + np.exp(-values / temperature)) for values in (teacher, student))
    expected = temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    loss = distillations["kl_sigmoid"](torch.tensor(student), torch.tensor(teacher), temperature)

    assert float(loss) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_kl_sigmoid_sees_a_common_shift_that_kl_is_blind_to():
    """It moves every label over its threshold."""
    teacher = torch.randn(4, 6)

    assert float(distillations["kl"](teacher + 3, teacher, 2.0)) == pytest.approx(0, abs=1e-5)
    assert float(distillations["kl_sigmoid"](teacher + 3, teacher, 2.0)) > 0.1


@given(logits, logits, temperatures)
def test_dkd_is_the_divergence_of_right_and_wrong_and_twice_that_among_the_wrong_classes(student, teacher, temperature):
    """The oracle is the formula in numpy, of probabilities; the last row is ignored."""
    right = np.array([4, 0, -1])
    p, q = (softmax(values / temperature)[:2] for values in (teacher, student))
    rows, wrong = np.arange(2), np.arange(5) != right[:2, None]
    both = [np.stack([each[rows, right[:2]], 1 - each[rows, right[:2]]], 1) for each in (p, q)]
    among = [each[wrong].reshape(2, 4) / each[wrong].reshape(2, 4).sum(1, keepdims=True) for each in (p, q)]
    parts = [(of_p * np.log(of_p / of_q)).sum(1).mean() for of_p, of_q in (both, among)]
    loss = distillations["dkd"](torch.tensor(student), torch.tensor(teacher), temperature, torch.tensor(right))

    assert float(loss) == pytest.approx(temperature**2 * (parts[0] + 2 * parts[1]), rel=1e-5, abs=1e-7)


def test_dkd_takes_the_likeliest_of_soft_targets():
    """They have the shape of the outputs."""
    student, teacher, targets = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4, 3)
    loss = distillations["dkd"]

    torch.testing.assert_close(loss(student, teacher, 2.0, targets), loss(student, teacher, 2.0, targets.argmax(-1)))


def test_kl_zscore_ignores_the_scale_of_the_student():
    """The student need not grow its logits to follow the teacher."""
    student, teacher = torch.randn(4, 6), torch.randn(4, 6)
    loss = distillations["kl_zscore"]
    torch.testing.assert_close(loss(3 * student + 1, teacher, 2.0), loss(student, teacher, 2.0))


@teaching
def test_a_perfect_student_has_nothing_to_learn(name):
    """The loss is zero at the teacher's own logits, and positive elsewhere."""
    teacher = torch.randn(4, 6)
    assert float(distill(name, teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)
    assert float(distill(name, torch.randn(4, 6), teacher, 3.0)) > 0


@over_classes
def test_sequences_count_like_examples(name):
    """(n, length, vocabulary) is the mean over positions."""
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    torch.testing.assert_close(
        distill(name, student, teacher, 2.0), distill(name, student.flatten(0, 1), teacher.flatten(0, 1), 2.0)
    )


@over_classes
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("classification", (4,)),
        ("classification", (4, 1)),
        ("classification", (4, 3, 8, 8)),
        ("classification", (4, 6, 5)),
        ("language_modeling", (4, 6)),
        ("language_modeling", (4, 6, 1)),
        ("segmentation", (4, 5)),
        ("regression", (4, 2)),
        ("multilabel", (4, 3)),
    ],
)
def test_outputs_that_are_no_distribution_are_refused(name, kind, shape):
    """The loss would be a number all the same: zero, NaN, or a softmax over the batch."""
    with pytest.raises(InfeasibleRecipeError, match=f"distill.loss '{name}'"):
        check_distillation(name, kind, torch.randn(shape), TARGETS[kind])


@pytest.mark.parametrize("kind", kinds.names())
def test_each_kind_takes_the_losses_that_mean_something_for_its_outputs(kind):
    """The shapes that `autocut.task.kinds` documents; every kind has at least one loss."""
    fitting = [loss.name for loss in distillations if kind in fitting_kinds(loss) and loss.name != "none"]
    for name in distillations.names():
        if name in (*fitting, "none"):
            check_distillation(name, kind, torch.randn(OUTPUTS[kind]), TARGETS[kind])
        else:
            with pytest.raises(InfeasibleRecipeError, match=f"distill.loss '{name}' fits .* only, got '{kind}'"):
                check_distillation(name, kind, torch.randn(OUTPUTS[kind]), TARGETS[kind])

    assert fitting


@pytest.mark.parametrize(
    ("targets", "fitting"),
    [
        (torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]]), {"kl_sigmoid"}),
        (torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]]), {"kl_sigmoid"}),
        (torch.tensor([[0.2, 0.8, 0.0], [1, 0, 0], [0.1, 0.2, 0.7]]), CLASS_LOSSES),
        (torch.tensor([[0.2, 5.0, -1.0], [1, 0, 0], [0.1, 0.2, 0.7]]), {"mse"}),
        (torch.tensor([0, 2, 1]), CLASS_LOSSES),
        (torch.tensor([0, -1, 1]), CLASS_LOSSES),
        (torch.tensor([[0, 5, 2], [1, 0, 0], [3, 3, 3]]), set()),
        (torch.randn(3, 7), set()),
    ],
    ids=["labels", "integer labels", "soft classes", "numbers", "ids", "ids, one ignored", "ranks", "other shape"],
)
def test_targets_decide_where_a_task_keeps_the_default_kind_beside_a_loss_of_its_own(targets, fitting):
    """A softmax over labels that do not exclude each other is blind to a common shift of the logits."""
    accepted = set()
    for name in set(distillations.names()) - {"none"}:
        try:
            check_distillation(name, "classification", torch.randn(2, 3), targets)
            accepted.add(name)
        except InfeasibleRecipeError:
            continue

    assert accepted == fitting


def test_no_distillation_takes_any_outputs():
    """There is nothing to distil."""
    check_distillation("none", "regression", torch.randn(4), TARGETS["mae"])


@over_classes
def test_the_fewest_classes_that_are_accepted_teach_something(name):
    """Two standardized logits are constants: their gradient is zero, so `kl_zscore` asks for a third."""
    fewest = distillations.method(name).options.classes
    student = torch.randn(8, fewest, requires_grad=True)
    distill(name, student, torch.randn(8, fewest), 2.0).backward()
    with pytest.raises(InfeasibleRecipeError):
        check_distillation(name, "classification", torch.randn(8, fewest - 1), torch.zeros(8, dtype=torch.long))

    assert student.grad.abs().max() > 1e-3


@pytest.mark.parametrize("name", distillations.names())
def test_distillation_is_a_scalar_that_names_its_kinds(name):
    """The trainer refuses a kind that is not named."""
    assert distill(name, torch.randn(2, 3), torch.randn(2, 3), 2.0).shape == ()
    assert set(fitting_kinds(distillations.method(name))) <= set(kinds.names())
