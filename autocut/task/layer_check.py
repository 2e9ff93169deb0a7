"""The part of `autocut check` that examines ``Task(features=...)``: the layers that a distillation compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from autocut.counting import format_count
from autocut.errors import AutocutError, Fault, nearest_hint
from autocut.task.batches import Inputs, batch_length, call, copied
from autocut.task.layers import layer_names, watched_layers
from autocut.task.task import Task, seeded

_EXAMPLE = "features={'layer of the model or of a student': 'layer of the teacher'}, with names of named_modules()"
_TOLD = 4
"""Names that a hint gives where none is near."""


def layer_setting_faults(features: Any) -> Iterator[Fault]:
    """What of `features` is no mapping of names to names."""
    if features is None:
        return
    if not isinstance(features, Mapping) or not features:
        yield Fault(f"task.features must map layers to layers of the teacher, got {features!r}", _EXAMPLE)
        return
    for own, taught in features.items():
        if not all(isinstance(name, str) and name for name in (own, taught)):
            yield Fault(f"task.features must map names of layers to names of layers, got {own!r}: {taught!r}", _EXAMPLE)


def layer_faults(task: Task, model: nn.Module, inputs: Inputs) -> Iterator[Fault]:
    """Layers that no model has, that are not called, or that give no tensor with the examples of `inputs` first."""
    if task.features is None or any(layer_setting_faults(task.features)):
        return  # there are none, or the check of the settings reports it
    try:
        teacher = (task.build_teacher() if callable(task.teacher) else None) or model
        students = {f"the student {name!r}": task.build_student(name) for name in task.student_names}
    except AutocutError:
        return  # the check of these models reports it
    trained = {"the model": model, **students}
    own = {name for each in trained.values() for name in layer_names(each)}
    of_whom = "the model or of a student" if students else "the model"
    yield from _unknown(task.features, own, of_whom)
    yield from _unknown(task.features.values(), set(layer_names(teacher)), "the teacher" if task.teacher else "the model")
    for subject, asked in trained.items():
        yield from _unseen(task, asked, set(task.features) & set(layer_names(asked)), subject, inputs)
    if teacher is not model:
        yield from _unseen(task, teacher, set(task.features.values()) & set(layer_names(teacher)), "the teacher", inputs)


def _unknown(names: Any, known: set[str], of_whom: str) -> Iterator[Fault]:
    for name in names:
        if name not in known:
            some = f"layers are {', '.join(sorted(known, key=lambda each: (each.count('.'), each))[:_TOLD])}"
            yield Fault(f"task.features must name layers of {of_whom}, got {name!r}", nearest_hint(name, sorted(known)) or some)


def _unseen(task: Task, model: nn.Module, names: set[str], subject: str, inputs: Inputs) -> Iterator[Fault]:
    try:
        with torch.no_grad(), seeded(task.seed), watched_layers(model, names) as seen:
            call(model, copied(inputs))
    except Exception:
        return  # a user's model may raise anything; the check of this model reports it
    for name in sorted(names):
        features, count = seen.get(name), batch_length(inputs)
        if name not in seen:
            yield Fault(
                f"task.features must name layers that {subject} calls, got {name!r}", "name the layer that is called instead"
            )
        elif features is None or features.dim() < 2 or len(features) != count:
            got = "no tensor" if features is None else f"the shape {tuple(features.shape)}"
            examples = format_count(count, "example")
            yield Fault(
                f"task.features must name layers that give the {examples} first, got {name!r} of {subject} with {got}",
                "name a layer whose output, or whose first output, is a tensor of shape (n, ...)",
            )
