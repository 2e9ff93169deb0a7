"""What is tried on the devices that will train and serve, before a search begins: whether they can, and how training is fastest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autocut.config import SearchConfig
from autocut.errors import TaskError, TrialError
from autocut.precision import AUTO, CONTIGUOUS, FULL, PRECISIONS, AskedPrecision, TrainingWay

if TYPE_CHECKING:
    from autocut.stages.device import Device
    from autocut.task.task import Task


@dataclass(frozen=True)
class AskedTraining:
    """How models are to be trained: the kind of device, the precision. `is_here`: on this machine, not on a cluster's nodes.

    After `most_s` seconds no further way of training is tried.
    """

    kind: str = "cpu"
    precision: AskedPrecision = FULL
    is_here: bool = True
    most_s: float = math.inf


AS_IT_IS = AskedTraining()
_SHARE = 0.05
"""Share of the budget that the question how to train may take."""


def asked_training(config: SearchConfig) -> AskedTraining:
    """Return what a search asks for."""
    is_here = config.ray_address is None
    return AskedTraining(config.train_on, config.train_precision, is_here=is_here, most_s=_SHARE * config.budget_s)


def choose_training(asked: AskedTraining, task: Task, known: Mapping[str, Any] | None) -> TrainingWay:
    """Decide in which way a study trains: as it was begun (`known` facts), else as it is asked to, and the fastest of these ways.

    Args:
        asked: What the user asks for. Nothing is timed for other machines: what is faster here need not be so there. Nor for a GPU:
            what a search finds there has been looked at for the plain way alone.
        task: Its models are trained for a few steps.
        known: The facts of the study; None: it is new.

    Raises:
        InputError: the device cannot be opened.
        TaskError: as `require_training_on`.
    """
    from autocut.stages.device import Device
    from autocut.stages.train import fastest_way

    begun = TrainingWay()
    if is_begun := known is not None and "threads" in known:
        begun = TrainingWay(known.get("train_precision", FULL), known.get("train_memory_format", CONTIGUOUS))
    precision = begun.precision if asked.precision == AUTO else asked.precision
    device = Device(asked.kind, precision)
    require_training_on(device, task)
    if is_begun or not (asked.is_here and device.is_cpu):
        return replace(begun, precision=precision)
    try:
        with device.exact():
            return fastest_way(task, asked.kind, PRECISIONS if asked.precision == AUTO else [precision], asked.most_s)
    except TrialError:
        return replace(begun, precision=precision)  # the first training tells what is wrong


def require_training_on(device: Device, task: Task) -> None:
    """Train a few batches as the search will, if that is not on the CPU in fp32, which `check_task` has tried.

    Raises:
        InputError: the device cannot be opened.
        TaskError: the task's code leaves tensors on the CPU, or the model does not fit there, or it does not run in bf16.
    """
    from autocut.stages.train import sample_seconds
    from autocut.task.file import describe_error

    if device.is_cpu and device.precision == FULL:
        return
    device.open()
    try:
        with device.exact():
            sample_seconds(task.build_model(), task, device=device)
    except TrialError as error:
        raise TaskError(error.message, "--train-on cpu --train-precision fp32") from error
    except RuntimeError as error:  # torch names two dtypes, or an operator that has no bfloat16
        if device.precision == FULL:
            raise
        raise TaskError(
            f"task.model must train in {device.precision}, got {describe_error(error, task.folder)}", "--train-precision fp32"
        ) from error


def require_serving_on(device: Device, task: Task) -> None:
    """Run the model on a few inputs on a GPU that is to serve it; nothing is done for the CPU, where `check_task` has tried it.

    Raises:
        InputError: the device cannot be opened.
        TaskError: the task's code leaves tensors on the CPU, or the model does not fit there.
    """
    from autocut.pipeline.measuring_stages import run_eagerly
    from autocut.pipeline.samples import Samples

    if device.is_cpu:
        return
    device.open(serves=True)
    inputs = Samples(task, 0).serving_inputs(min(task.serving_batch_sizes))
    try:
        with device.errors_translated("serving"):
            run_eagerly(task.build_model().eval(), device)(inputs)
    except TrialError as error:
        raise TaskError(error.message, "--serve-on cpu") from error
