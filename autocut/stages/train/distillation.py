"""Distillation losses on logits: the student follows the teacher's whole output, not only the label.

The last dimension of logits is the distribution, and the mean is taken over all the others: (n, classes), (n, length, vocabulary),
(n, height, width, classes). Other outputs (one logit for two classes, labels that do not exclude each other) would give a number
too, but a meaningless one: `check_distillation` refuses them. Kind and targets decide what outputs mean, not their shape.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.counting import format_count
from autocut.errors import InfeasibleRecipeError, quoted
from autocut.stages.methods import fitting_kinds
from autocut.stages.train.registries import distillations
from autocut.stages.train.teacher import run_teacher, sample_examples
from autocut.task.batches import take
from autocut.task.kinds import Kind, Meaning, kinds
from autocut.task.task import Task

_SAMPLED = 64
"""Number of training examples whose targets tell what the outputs of a task of its own loss mean."""


def check_distillation(loss_name: str, kind_name: str, outputs: Tensor, targets: Tensor) -> None:
    """Refuse a distillation that cannot mean anything for a model's `outputs`.

    Args:
        loss_name: ``distill.loss``.
        kind_name: The task's kind.
        outputs: Of a few examples.
        targets: Of the same examples, and of more after them. They decide where the task has a loss of its own: its kind may be the
            default one.

    Raises:
        InfeasibleRecipeError: the loss does not fit tasks of this kind, or what the outputs mean.
        UnknownNameError: no such loss.
    """
    loss, kind = distillations.method(loss_name), kinds[kind_name]()
    fewest, shape = loss.options.classes, kind.logits_shape
    are_classes = fewest is not None and shape is not None and kind.meaning is Meaning.CLASSES
    if are_classes and (outputs.dim() != len(shape or ()) or outputs.shape[kind.class_dim] < (fewest or 0)):
        raise InfeasibleRecipeError(
            f"distill.loss {quoted(loss_name)} needs outputs of shape ({', '.join(shape or ())}) with at least "
            f"{format_count(fewest or 0, 'class', 'classes')}, got {tuple(outputs.shape)}"
        )
    meaning = meaning_of(kind, outputs, targets)
    used = kind if meaning is kind.meaning else with_meaning(kind, meaning)
    if not loss.options.takes(kind_name, used):
        fitting = " and ".join(fitting_kinds(loss))
        got = repr(kind_name)
        if used is not kind:
            got += f" with outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, which are {meaning.value}"
        raise InfeasibleRecipeError(f"distill.loss {quoted(loss_name)} fits {fitting} tasks only, got {got}")


def kind_as_used(task: Task) -> Kind:
    """Return the kind of `task`, with what the outputs really mean: with a loss and a metric of its own a task may keep any kind.

    Raises:
        TaskError: the model cannot be built.
    """
    kind = kinds[task.kind]()
    if task.loss is None or task.metric is None:
        return kind  # `autocut check` has compared the outputs and targets with the kind
    return with_meaning(kind, meaning_of(kind, *sample_answers(task.build_model(), task)))


def sample_answers(model: nn.Module, task: Task) -> tuple[Tensor, Tensor]:
    """Return the outputs of two training examples, and the targets of these two and of more, all spread over the split."""
    inputs, targets = sample_examples(task, min(_SAMPLED, task.batch_size))
    return run_teacher(model, take(inputs, min(2, len(targets)))).cpu(), targets


def meaning_of(kind: Kind, outputs: Tensor, targets: Tensor) -> Meaning:
    """Return what outputs mean: what the kind says where they fit it, else what the targets tell.

    Targets of the outputs' shape are labels where each is 0 or 1, classes where each example's sum to 1, and numbers else.
    """
    are_ids = not targets.is_floating_point()
    if kind.output_fault(outputs, targets[: len(outputs)]) is None and (
        are_ids or kind.meaning is Meaning.NUMBERS or kind.target_fault(outputs, targets) is None
    ):
        return kind.meaning
    if outputs.shape[1:] != targets.shape[1:]:
        return Meaning.UNKNOWN
    wanted = targets.double()
    if outputs.dim() == 2 and outputs.shape[1] > 1 and bool((wanted >= 0).all() and ((wanted.sum(1) - 1).abs() < 1e-4).all()):
        return Meaning.CLASSES
    if bool(((wanted == 0) | (wanted == 1)).all()):
        return Meaning.LABELS
    return Meaning.UNKNOWN if are_ids else Meaning.NUMBERS


def with_meaning(kind: Kind, meaning: Meaning) -> Kind:
    """Return `kind` with outputs of another meaning."""
    if meaning is Meaning.UNKNOWN:
        return replace(kind, meaning=meaning, logits_shape=None)
    return replace(kind, meaning=meaning)


@distillations.register("none")
def distill_none(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:  # noqa: ARG001
    """Train on the task's own loss alone."""
    return student_logits.new_zeros(())


@distillations.register("kl", version=2, classes=2)
def distill_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL divergence from the softened teacher to the softened student, times T squared.

    T squared keeps the size of the gradient the same at every temperature, so alpha means the same.

    References:
        Hinton et al. 2015, https://arxiv.org/abs/1503.02531
    """
    classes = student_logits.shape[-1]
    student = functional.log_softmax(student_logits.reshape(-1, classes) / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_logits.reshape(-1, classes) / temperature, dim=-1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


@distillations.register("kl_zscore", version=2, classes=3)
def distill_kl_zscore(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`kl` on logits standardized per example, so that the student need not match the teacher's scale.

    Two standardized logits are always the same two numbers, from which nothing can be learned: it takes three classes.

    References:
        Sun et al. 2024, https://arxiv.org/abs/2403.01427
    """
    return distill_kl(_standardize(student_logits), _standardize(teacher_logits), temperature)


def _standardize(logits: Tensor) -> Tensor:
    deviation = logits.std(dim=-1, correction=1, keepdim=True)
    return (logits - logits.mean(dim=-1, keepdim=True)) / torch.clamp(deviation, min=1e-7)
