"""The part of `autocut check` that examines the models beside the task's own: its teacher and its students."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from autocut.errors import AutocutError, Fault, quoted
from autocut.recipe import NO_STUDENT
from autocut.task.answer_form import other_form_fault
from autocut.task.batch_check import changed_inputs_fault
from autocut.task.batches import Inputs, call, copied, tensors
from autocut.task.file import describe_error
from autocut.task.kinds import Meaning
from autocut.task.task import Task, seeded

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXAMPLE = "students={'narrow': build_narrow}"


def teacher_faults(task: Task, model: nn.Module, inputs: Inputs) -> Iterator[Fault]:
    """A teacher that cannot be built, does not run on a batch, changes it, or answers in another shape than the model."""
    if not callable(task.teacher) or isinstance(task.teacher, nn.Module):
        return  # there is none, or the check of the settings reports it
    try:
        teacher = task.build_teacher()
    except AutocutError as error:
        yield Fault(error.message, error.hint)
        return
    if teacher is not None:
        yield from _answer_faults(task, "task.teacher", teacher, model, inputs)


def student_faults(task: Task, model: nn.Module, inputs: Inputs) -> Iterator[Fault]:
    """For each student what the check finds of a teacher; then whether it can be trained and stored, and is really smaller."""
    if any(student_setting_faults(task)):
        return  # the check of the settings reports it
    for name in task.student_names:
        subject = f"task.students[{quoted(name)}]"
        try:
            student = task.build_student(name)
        except AutocutError as error:
            yield Fault(error.message, error.hint)
            continue
        found = list(_answer_faults(task, subject, student, model, inputs))
        yield from found or _student_faults(subject, student, model)


def student_setting_faults(task: Task) -> Iterator[Fault]:
    """Students that are no functions by name."""
    if task.students is None:
        return
    if not isinstance(task.students, Mapping):
        yield Fault(f"task.students must be functions by name, got {type(task.students).__name__}", _EXAMPLE)
        return
    for name, build in task.students.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield Fault(f"the name of a student must be letters, digits, '.', '_' or '-', got {quoted(name)}", _EXAMPLE)
        elif name == NO_STUDENT:
            yield Fault(f"the name of a student must not be {quoted(name)}, which stands for the model itself", _EXAMPLE)
        elif isinstance(build, nn.Module):
            yield Fault(
                f"task.students[{quoted(name)}] must be a function that builds a model, got the model itself",
                f"students={{{quoted(name)}: build_{name}}}",
            )
        elif not callable(build):
            yield Fault(
                f"task.students[{quoted(name)}] must be a function, got {type(build).__name__}",
                "give the function itself, not its result",
            )


def _answer_faults(task: Task, subject: str, other: nn.Module, model: nn.Module, inputs: Inputs) -> Iterator[Fault]:
    """The first reason why `other` cannot stand beside `model`, with which it shares inputs and outputs."""
    kind = "teacher" if subject == "task.teacher" else "student"
    given = copied(inputs)
    try:
        with torch.set_grad_enabled(task.metric_kind.meaning is Meaning.LABELS), seeded(task.seed):
            answers, outputs = call(other, given), call(model, inputs)
    except AutocutError as error:
        yield Fault(f"{subject}: {error.message}", f"the {kind} answers in the same form as the model")
        return
    except Exception as error:
        # A user's model may raise anything. The task's model has run on this batch already.
        shapes = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}".replace("torch.", "") for tensor in tensors(inputs).values())
        yield Fault(
            f"{subject} must run on a batch of train ({shapes}), got {describe_error(error, task.folder)}",
            f"the {kind} gets the same inputs as the model",
        )
        return
    if fault := changed_inputs_fault(given, inputs, subject):
        yield fault
    elif answers.shape != outputs.shape:
        yield Fault(
            f"{subject} must answer in the shape of the model {tuple(outputs.shape)}, got {tuple(answers.shape)}",
            f"give the {kind} the model's outputs, such as the same classes; distillation compares them one by one",
        )
    elif fault := other_form_fault(task.metric_kind, subject, answers, outputs):
        yield fault


def _student_faults(subject: str, student: nn.Module, model: nn.Module) -> Iterator[Fault]:
    if not any(parameter.requires_grad for parameter in student.parameters()):
        yield Fault(f"{subject} must have parameters that require grad, got none", "a student is trained in the model's place")
        return
    own, whole = _count(student), _count(model)
    if own >= whole:
        yield Fault(
            f"{subject} must have fewer parameters than the model, {whole:,}, got {own:,}",
            "a narrower or shallower model; a larger one can be the teacher=",
        )
    try:
        pickle.dump(student, io.BytesIO())
    except Exception as error:
        # Pickling runs the user's __reduce__ and __getstate__.
        yield Fault(
            f"{subject} must be picklable, got {describe_error(error, None)}",
            "define classes and functions at the top level of a module, no lambdas in a module",
        )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
