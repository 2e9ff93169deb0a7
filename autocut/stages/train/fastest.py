"""The way of training that is fastest here, found by timing a few steps in each before a search trains for minutes or hours.

Trainings of seconds keep to the plain way: there is little to gain, and their weights stay the same from study to study.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from autocut.precision import MEMORY_FORMATS, Precision, TrainingWay
from autocut.stages.device import Device, convolutions
from autocut.stages.train.plan import planned_sizes
from autocut.stages.train.speed import LONG_S
from autocut.stages.train.trainer import sample_seconds
from autocut.task.batches import Inputs, call
from autocut.task.splits import length
from autocut.task.task import Task

_GAIN = 1.15
"""How many times as fast another way must be: it rounds in other places, and a machine is never quite still."""
_STEP_S = 2.0
"""Seconds that a timed step may take: where the task's batch takes longer, a smaller one is timed."""
_FEW = 4
"""Examples of the first steps, which tell how long a larger batch would take."""
_NEAR = 0.1
"""How far the answers of another way may be from those of the plain one, as a share of their norm; bfloat16 rounds to 0.4%."""


def fastest_way(task: Task, kind: str, precisions: Sequence[Precision], most_s: float = math.inf) -> TrainingWay:
    """Find how the task's models train fastest on a device.

    Args:
        task: Copies of its model and its students are trained for a few steps. They and the teacher must bear what is chosen.
        kind: Of the device: "cpu" or "cuda".
        precisions: What may be chosen, the plain one first.
        most_s: After so many seconds no further way is tried.

    Raises:
        TrialError: The model does not train in the plain way, or memory runs out.
    """
    began = time.monotonic()
    models = [task.build_model(), *map(task.build_student, task.student_names)]
    teachers = [teacher for teacher in [task.build_teacher()] if teacher is not None]
    formats = MEMORY_FORMATS if any(map(convolutions, models)) else MEMORY_FORMATS[:1]
    plain, *others = (Device(kind, precision, memory_format) for precision in precisions for memory_format in formats)
    few, plain_s = _few(task, models[0], plain)
    samples = sum(planned_sizes({"train.epochs": task.epochs}, length(task.train_data), task.batch_size))
    best, best_s = plain, plain_s
    if plain_s * samples > LONG_S:
        for way in others:
            if time.monotonic() - began > most_s:
                break
            seconds = _sample_seconds(models, teachers, few, plain, way)
            if seconds is not None and _GAIN * seconds < best_s:
                best, best_s = way, seconds
    if best != plain:
        # Whatever else the machine did meanwhile may have slowed the plain way down.
        plain_s = min(plain_s, sample_seconds(models[0], few, device=plain))
        if plain_s < _GAIN * best_s:
            best, best_s = plain, plain_s
    return TrainingWay(best.precision, best.memory_format, plain_s / best_s, best_s)


def _few(task: Task, model: nn.Module, device: Device) -> tuple[Task, float]:
    """Return the task with a batch size whose steps take no longer than `_STEP_S`, and the seconds of a sample then."""
    few = replace(task, batch_size=min(_FEW, task.batch_size))
    seconds = sample_seconds(model, few, device=device)
    rows = min(task.batch_size, int(_STEP_S / seconds))
    if rows <= few.batch_size:
        return few, seconds
    few = replace(task, batch_size=rows)
    return few, sample_seconds(model, few, device=device)


def _sample_seconds(
    models: Sequence[nn.Module], teachers: Sequence[nn.Module], few: Task, plain: Device, way: Device
) -> float | None:
    """Return the seconds of a sample of the first model in that `way`; None where one of the models or teachers does not bear it.

    A model bears it if it trains, and answers nearly the same. What torch and a model's own code raise otherwise is of any kind.
    """
    try:
        with torch.no_grad():
            inputs, _ = next(iter(few.loader(few.train_data, few.batch_size)))
            if not all(_is_near(_answer(model, inputs, way), _answer(model, inputs, plain)) for model in [*models, *teachers]):
                return None
        seconds, *_ = [sample_seconds(model, few, device=way) for model in models]
    except Exception:
        return None
    return seconds


def _answer(model: nn.Module, inputs: Inputs, device: Device) -> Tensor:
    placed = device.place_for_training(copy.deepcopy(model)).eval()
    with device.mixed():
        return device.unmixed(call(placed, device.move_inputs(inputs))).cpu()


def _is_near(answer: Tensor, expected: Tensor) -> bool:
    norm = torch.linalg.vector_norm
    return bool(norm((answer - expected).float()) <= _NEAR * norm(expected.float()))
