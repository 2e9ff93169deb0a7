"""The part of `autocut check` that compares what a model answers with what its loss and its metric expect.

A model that ends in softmax answers with probabilities. A cross entropy takes logits and applies a softmax of its own: even a
right answer keeps a high loss, and the model trains badly. Accuracy does not show it: the largest probability is the largest logit.

No name of a loss is looked at, because a user's loss may be any function. It judges made-up right answers instead, once in the form
in which the model answers, and once as logits. Where the first lose much, logits are expected, and the answers are a fault. Where
loss and metric take them as they are, only distillation suffers, and a remark says so.
"""

from __future__ import annotations

import copy
import enum
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocut.errors import Fault
from autocut.task.batches import Batch, call, copied, cut
from autocut.task.kinds import Kind, Meaning
from autocut.task.task import Task, seeded

_SHARES = (0.9, 0.99, 0.999)
"""Probabilities of what is right in made-up answers. Each form is judged by the best of them."""
_LOST = 0.05
"""What a form may lose of what right answers win over an answer that says nothing."""
_EXAMPLES, _FEWER, _MANY_TARGETS = 8, 2, 64
"""Examples that are looked at, and those where an example has many targets: each of them may have a vocabulary of outputs."""
_SUM, _SUM_OF_HALF = 1e-3, 2e-2
_RESHAPES = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Squeeze|Unsqueeze|Transpose|Permute|T|Slice|Select|Clone|ToCopy|Alias|Cat|Stack)Backward\d*"
)
_SQUASHES = re.compile(r"(LogSigmoid|Sigmoid|Hardsigmoid|LogSoftmax|Softmax)Backward\d*")
Judge = Callable[[Kind, Tensor, Tensor], float]
"""Gives a number for outputs and targets; higher is better."""
_JUDGED = (Meaning.CLASSES, Meaning.LABELS)


class AnswerForm(enum.StrEnum):
    """What a model answers with, where that is no logits."""

    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log-probabilities"


@dataclass(frozen=True)
class Answers:
    """Outputs and targets of a few examples, what the outputs mean, and their form. Without a meaning nothing is judged.

    `trained` is the form in train mode: some models apply their softmax only where they are served.
    """

    outputs: Tensor
    targets: Tensor
    meaning: Meaning | None = None
    form: AnswerForm | None = None
    trained: AnswerForm | None = None

    @staticmethod
    def of(task: Task, model: nn.Module, batch: Batch) -> Answers:
        """Call the model with the first examples of `batch`, and a copy in train mode where the answers are no logits."""
        kind = task.metric_kind
        few = cut(batch, _FEWER if batch[1][0].numel() > _MANY_TARGETS else _EXAMPLES)
        try:
            outputs, targets = _call(task, model, few), few[1]
            if (meaning := _meaning(task, kind, outputs, targets)) is None:
                return Answers(outputs, targets)
            form = form_of(outputs, kind, meaning)
            trained = None if form is None else form_of(_call(task, copy.deepcopy(model).train(), few), kind, meaning)
        except Exception:
            # It runs without a graph, as the check knows by now; the check that trains the model reports what fails otherwise.
            return Answers(few[1], few[1])
        return Answers(outputs, targets, meaning, form, trained)


def form_faults(task: Task, answers: Answers) -> Iterator[Fault]:
    """Answers that have another form than the task's loss or its metric expects."""
    with seeded(task.seed):
        if _takes_log_probabilities(task, answers):
            if answers.form is not AnswerForm.LOG_PROBABILITIES:
                yield Fault(
                    f"task.model must answer with log-probabilities for task.loss, got {answers.form or 'logits'}",
                    "loss=torch.nn.functional.cross_entropy, which takes logits, or end the model with log_softmax(-1): "
                    "as it is, the loss falls without end as all outputs grow",
                )
        elif answers.meaning is not None:
            yield from _logits_faults(task, answers)


def form_remarks(task: Task, answers: Answers) -> Iterator[str]:
    """Yield what the user should know about the form of answers. `check` shows it for a task without faults."""
    meaning, kind = answers.meaning, task.metric_kind
    if meaning is None or kind.meaning is not meaning:
        return  # nothing is distilled from such answers
    form = answers.form
    if form is AnswerForm.LOG_PROBABILITIES and meaning is Meaning.CLASSES:
        if not _takes_log_probabilities(task, answers):
            yield "task.model ends in log_softmax, which its loss applies again: that does no harm, but every call pays for it"
    elif form is not None:
        yield (
            f"task.model answers with {form}: distillation takes answers for logits, and teaches more by a model that ends before "
            f"its {_end(meaning)}"
        )


def other_form_fault(kind: Kind, subject: str, answers: Tensor, outputs: Tensor) -> Fault | None:
    """Return a fault where `subject`, a teacher or a student, answers in another form than the model: one learns from the other."""
    if kind.meaning not in _JUDGED:
        return None
    own, wanted = form_of(answers, kind, kind.meaning), form_of(outputs, kind, kind.meaning)
    logits = (
        {None, AnswerForm.LOG_PROBABILITIES} if kind.meaning is Meaning.CLASSES else {None}
    )  # of classes, these are logits as well
    if own is wanted or {own, wanted} <= logits:
        return None
    return Fault(
        f"{subject} must answer with {wanted or 'logits'} as the model does, got {own or 'logits'}",
        f"end both before their {_end(kind.meaning)}",
    )


def form_of(outputs: Tensor, kind: Kind, meaning: Meaning) -> AnswerForm | None:
    """Return the form of `outputs`; None: logits.

    Probabilities of classes add up to 1. Logits of labels may happen to be between 0 and 1, so for labels the last operation
    decides, which only outputs with a graph tell.
    """
    if meaning is Meaning.LABELS:
        squash = _last_squash(outputs)
        return None if squash is None else AnswerForm.LOG_PROBABILITIES if squash.startswith("Log") else AnswerForm.PROBABILITIES
    values = outputs.detach()
    near = _SUM_OF_HALF if outputs.dtype in (torch.float16, torch.bfloat16) else _SUM
    if bool((values >= 0).all()) and _adds_up(values, kind, near):
        return AnswerForm.PROBABILITIES
    if bool((values <= near).all()) and _adds_up(values.exp(), kind, near):
        return AnswerForm.LOG_PROBABILITIES
    return None


def _call(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """Answers, with a graph where labels may be meant: it tells the last operation."""
    with torch.set_grad_enabled(task.metric_kind.meaning is not Meaning.CLASSES or task.loss is not None), seeded(task.seed):
        return call(model, copied(batch[0]))


def _meaning(task: Task, kind: Kind, outputs: Tensor, targets: Tensor) -> Meaning | None:
    """What outputs mean: with a loss and a metric of one's own they may have another shape than the kind's."""
    counted = targets if kind.counted is None else targets[kind.counted(targets)]
    if (
        kind.meaning in _JUDGED
        and len(counted)
        and not (kind.output_fault(outputs, targets) or kind.target_fault(outputs, counted))
    ):
        return kind.meaning
    is_binary = outputs.numel() == targets.numel() and bool(((targets == 0) | (targets == 1)).all())
    return Meaning.LABELS if task.loss is not None and is_binary else None


def _adds_up(values: Tensor, kind: Kind, near: float) -> bool:
    return bool(((values.sum(kind.class_dim, dtype=torch.float32) - 1).abs() < near).all())


def _last_squash(outputs: Tensor) -> str | None:
    """Return the name of the softmax or sigmoid that made `outputs`, None where something else made them."""
    node = outputs.grad_fn
    while node is not None and _RESHAPES.fullmatch(node.name()):
        node = next((before for before, _ in node.next_functions if before is not None), None)
    found = None if node is None else _SQUASHES.fullmatch(node.name())
    return found[1] if found else None


def _takes_log_probabilities(task: Task, answers: Answers) -> bool:
    """Whether the loss falls steadily as all outputs grow alike, as the negative log-likelihood does: it normalizes nothing."""
    if task.loss is None or answers.meaning is not Meaning.CLASSES:
        return False
    made = torch.randn(answers.outputs.shape, generator=torch.Generator().manual_seed(0))
    first, second, third = (_minus_loss(task.metric_kind, made + step, answers.targets) for step in (0.0, 4.0, 8.0))
    return second > first and math.isclose(second - first, third - second, rel_tol=0.01)


def _logits_faults(task: Task, answers: Answers) -> Iterator[Fault]:
    """The loss, or else the metric, that expects logits in place of the form of the answers."""
    own_loss, own_metric = task.loss is not None, task.metric is not None or task.summarize is not None
    loss, metric = "task.loss" if own_loss else "its loss", "task.metric" if own_metric else f"its metric {task.metric_kind.name}"
    for judge, form, name, number in (
        (_minus_loss, answers.trained, loss, "loss"),
        (_metric, answers.form, metric, "metric"),
    ):
        found = None if form is None else _lost(judge, task.metric_kind, answers, form)
        if found is not None:
            in_form, as_logits = (abs(value) if judge is _minus_loss else value for value in found)
            yield Fault(
                f"task.model must answer with logits for {name}, got {form}",
                f"end the model before its {_end(answers.meaning)}: as it is, even right answers have a {number} of {in_form:.2f}, "
                f"logits {as_logits:.2f}",
            )
            return


def _lost(judge: Judge, kind: Kind, answers: Answers, form: AnswerForm) -> tuple[float, float] | None:
    """What `judge` gives for right answers in `form` and as logits, where the first are much worse. None where they are not."""
    best = {None: -math.inf, form: -math.inf}
    for share in _SHARES:
        chances = _right_answers(kind, answers, share)
        logits = chances.log() if answers.meaning is Meaning.CLASSES else chances.logit()
        for shape, made in ((None, logits), (form, chances if form is AnswerForm.PROBABILITIES else chances.log())):
            best[shape] = max(best[shape], judge(kind, made, answers.targets))
    nothing = judge(kind, torch.zeros(answers.outputs.shape), answers.targets)
    lost, won = best[None] - best[form], best[None] - nothing
    return (best[form], best[None]) if math.isfinite(lost) and math.isfinite(won) and lost > _LOST * won > 0 else None


def _right_answers(kind: Kind, answers: Answers, share: float) -> Tensor:
    """Probabilities in the shape of the outputs, with `share` for what is right."""
    outputs, targets = answers.outputs, answers.targets
    if answers.meaning is Meaning.LABELS:
        return torch.where(targets.reshape(outputs.shape) > 0.5, share, 1 - share)
    classes = outputs.shape[kind.class_dim]
    right = targets.long().clamp(min=0).unsqueeze(-1)  # what does not count has a negative number
    rows = torch.full((*targets.shape, classes), (1 - share) / (classes - 1))
    return rows.scatter(-1, right, share).movedim(-1, kind.class_dim)


def _minus_loss(kind: Kind, outputs: Tensor, targets: Tensor) -> float:
    return _number(lambda: -float(kind.loss(outputs, targets)))


def _metric(kind: Kind, outputs: Tensor, targets: Tensor) -> float:
    return _number(lambda: float(kind.summarize(kind.scores(outputs, targets).double().numpy(), targets.numpy())))


def _number(judge: Callable[[], float]) -> float:
    """What `judge` gives, NaN where it refuses made-up answers: a user's loss or metric may raise anything."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return judge()
    except Exception:
        return math.nan


def _end(meaning: Meaning | None) -> str:
    return "softmax" if meaning is Meaning.CLASSES else "sigmoid"
