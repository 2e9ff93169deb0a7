"""What a model answers with, against what its loss and its metric expect: logits, probabilities, log-probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocut.task.check import faults_of
from autocut.task.task import Task

ROWS = torch.randn(180, 4, generator=torch.Generator().manual_seed(0))
CLASSES = ROWS[:, :3].argmax(1)
LABELS = (ROWS[:, :3] > 0).float()
PIXELS = ROWS[:, :1, None, None].expand(-1, 1, 2, 4) + torch.arange(8.0).view(2, 4) / 8


def linear(*after, outputs=3):
    """A model that ends in `after`."""
    return lambda: nn.Sequential(nn.Linear(4, outputs), *after)


def checked(targets, model, inputs=ROWS, **settings):
    """A small task and its faults."""
    parts = [(inputs[at : at + 60], targets[at : at + 60]) for at in (0, 60, 120)]
    task = Task(name="tiny", model=model, train=parts[0], validation=parts[1], test=parts[2], **settings)
    return task, faults_of(task)


class Shaped(nn.Module):
    """Gives the outputs of a linear layer another shape at the end."""

    def __init__(self, *after):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), *after)

    def forward(self, x):
        """The same numbers, as a view of a view."""
        return self.layers(x).unsqueeze(0).squeeze(0)


FAULTS = {
    "softmax before the cross entropy of the kind": (
        "task.model must answer with logits for its loss, got probabilities",
        CLASSES, linear(nn.Softmax(1)), {},
    ),
    "softmax before a cross entropy of one's own": (
        "task.model must answer with logits for task.loss, got probabilities",
        CLASSES, linear(nn.Softmax(1)), {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
    ),
    "log_softmax of labels": (
        "task.model must answer with logits for its loss, got log-probabilities",
        LABELS, linear(nn.LogSigmoid()), {"kind": "multilabel"},
    ),
    "sigmoid before BCE with logits": (
        "task.model must answer with logits for its loss, got probabilities",
        LABELS, linear(nn.Sigmoid()), {"kind": "multilabel"},
    ),
    "sigmoid below other shapes": (
        "task.model must answer with logits for its loss, got probabilities",
        LABELS, lambda: Shaped(nn.Sigmoid()), {"kind": "multilabel"},
    ),
    "sigmoid before BCE with logits of one's own, one output": (
        "task.model must answer with logits for task.loss, got probabilities",
        LABELS[:, 0], linear(nn.Sigmoid(), nn.Flatten(0), outputs=1),
        {"loss": nn.BCEWithLogitsLoss(), "metric": lambda outputs, targets: ((outputs > 0.5) == (targets > 0.5)).float()},
    ),
    "sigmoid with a loss that fits it, but the metric of the kind": (
        "task.model must answer with logits for its metric f1_per_example, got probabilities",
        LABELS, linear(nn.Sigmoid()), {"kind": "multilabel", "loss": nn.BCELoss()},
    ),
    "raw logits for the negative log-likelihood": (
        "task.model must answer with log-probabilities for task.loss, got logits",
        CLASSES, linear(), {"loss": nn.NLLLoss()},
    ),
    "probabilities for the negative log-likelihood": (
        "task.model must answer with log-probabilities for task.loss, got probabilities",
        CLASSES, linear(nn.Softmax(1)), {"loss": nn.NLLLoss()},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_answers_in_a_form_that_the_loss_does_not_take_are_one_fault(case):
    """Accuracy looks right with most of them."""
    message, targets, model, settings = FAULTS[case]
    _, faults = checked(targets, model, **settings)

    assert [fault.message for fault in faults] == [message]
    assert faults[0].hint


GOOD = {
    "logits": (CLASSES, linear(), {}),
    "logits of labels": (LABELS, linear(), {"kind": "multilabel"}),
    "logits of labels that are all between 0 and 1": (
        LABELS, lambda: nn.Sequential(nn.Linear(4, 3), nn.Softsign(), nn.ReLU()), {"kind": "multilabel"},
    ),
    "log-probabilities for the negative log-likelihood": (CLASSES, linear(nn.LogSoftmax(1)), {"loss": nn.NLLLoss()}),
    "a loss of logits without a name": (
        CLASSES, linear(), {"loss": lambda outputs, targets: functional.cross_entropy(outputs, targets, reduction="none").sum()},
    ),
    "a margin": (CLASSES, linear(), {"loss": nn.MultiMarginLoss()}),
    "a regression between 0 and 1": (ROWS[:, 0].sigmoid(), linear(nn.Sigmoid(), nn.Flatten(0), outputs=1), {"kind": "regression"}),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_answers_in_the_form_of_the_loss_are_no_fault_and_get_no_remark(case):
    """Whatever the numbers of a new model happen to be."""
    targets, model, settings = GOOD[case]
    task, faults = checked(targets, model, **settings)

    assert faults == []
    assert task.notes == ()


def test_a_second_log_softmax_does_no_harm():
    """It is told, because each call pays for it."""
    task, faults = checked(CLASSES, linear(nn.LogSoftmax(1)))

    assert faults == []
    assert [note.partition(",")[0] for note in task.notes] == ["task.model ends in log_softmax"]


def test_probabilities_with_a_loss_that_takes_them_are_remarked_for_distillation():
    """The loss and the metric are right; a teacher's softened answers would be softened twice."""
    loss = lambda outputs, targets: functional.nll_loss((outputs + 1e-6).log(), targets)  # noqa: E731
    task, faults = checked(CLASSES, linear(nn.Softmax(1)), loss=loss)

    assert faults == []
    (note,) = task.notes
    assert note.startswith("task.model answers with probabilities: distillation")


class ServedSoftmax(nn.Linear):
    """Answers with logits while it is trained, and with probabilities where it is served."""

    def forward(self, x):
        """(n, 4) -> (n, 3)."""
        outputs = super().forward(x)
        return outputs if self.training else outputs.softmax(1)


def test_a_softmax_that_only_a_served_model_has_is_a_remark():
    """The loss gets logits; the answers of a teacher are those of a served model."""
    task, faults = checked(CLASSES, lambda: ServedSoftmax(4, 3))

    assert faults == []
    assert [note.partition(":")[0] for note in task.notes] == ["task.model answers with probabilities"]


@pytest.mark.parametrize("kind", ["segmentation", "perplexity", "language_modeling"])
def test_the_classes_of_pixels_and_tokens_are_looked_at_too(kind):
    """Their classes stand in another dimension."""
    if kind == "segmentation":
        end, inputs, targets = nn.Softmax(1), PIXELS, (PIXELS[:, 0] > 0).long()
        build = lambda *after: nn.Sequential(nn.Conv2d(1, 2, 1), *after)  # noqa: E731
    else:
        tokens = torch.randint(0, 7, (180, 9), generator=torch.Generator().manual_seed(1))
        end, inputs, targets = nn.Softmax(-1), tokens[:, :-1], tokens[:, 1:]
        build = lambda *after: nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 7), *after)  # noqa: E731

    assert checked(targets, build, inputs, kind=kind)[1] == []
    (fault,) = checked(targets, lambda: build(end), inputs, kind=kind)[1]
    assert fault.message == "task.model must answer with logits for its loss, got probabilities"


@pytest.mark.parametrize(
    ("kind", "targets", "end"), [("classification", CLASSES, nn.Softmax(1)), ("multilabel", LABELS, nn.Sigmoid())]
)
def test_a_teacher_and_a_student_answer_in_the_form_of_the_model(kind, targets, end):
    """One learns from the other's answers."""
    others = {"teacher": linear(end), "students": {"small": lambda: nn.Sequential(nn.Linear(4, 3, bias=False), end)}}
    _, faults = checked(targets, linear(), kind=kind, **others)

    assert [fault.message for fault in faults] == [
        "task.teacher must answer with logits as the model does, got probabilities",
        "task.students['small'] must answer with logits as the model does, got probabilities",
    ]


def test_log_probabilities_of_classes_teach_as_logits_do():
    """Softmax gives the same for both."""
    assert checked(CLASSES, linear(), teacher=linear(nn.LogSoftmax(1)))[1] == []
