"""The part of `autocut check` that examines the model: it is built, run, scored, and loaded by a worker process."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autocut.errors import AutocutError, Fault
from autocut.task.batch_check import changed_inputs_fault, output_batch_fault
from autocut.task.batches import Batch, Inputs, batch_length, call, copied, take, tensors
from autocut.task.building import CPU_HINT
from autocut.task.file import describe_error
from autocut.task.metric_check import judging_faults
from autocut.task.outputs import OneOutput
from autocut.task.splits import length, spread
from autocut.task.task import Task, seeded
from autocut.task.worker import ANSWER, MODEL

AskWorker = Callable[[Path, str | None], Mapping[str, str]]
"""Calls `load_as_worker` in another process."""

SAMPLE = 2048
"""Number of examples of a split that are examined, evenly spread."""

WORKER_TIMEOUT_S = 120

_FEW = 2
_FAST_S = 0.05
"""A call with `_FEW` examples that takes less shows a model for which every check has time."""
_TIMED_CALLS = 3
_TIMED_S = 1.0
"""Of a slow model two calls are timed, if they take this long together."""


@dataclass(frozen=True)
class CallTime:
    """Seconds that the model takes for one example. The checks of a slow model look at fewer examples."""

    seconds: float

    def examples(self, budget_s: float, least: int, most: int) -> int:
        """Return how many examples the model answers in `budget_s` seconds, between `least` and `most`."""
        return max(least, min(most, int(budget_s / max(self.seconds, 1e-9))))

    @staticmethod
    def of(task: Task, model: nn.Module, inputs: Inputs) -> CallTime:
        """Time calls with two examples: the fastest of three, or of two slow ones, unless the first shows that the model is fast.

        A first call may spend its time on preparations, any call on a busy machine. A model that fails counts as fast: the check
        that runs it next reports why.
        """
        few, seconds, spent = take(inputs, _FEW), math.inf, 0.0
        for number in range(_TIMED_CALLS):
            started = time.perf_counter()
            try:
                with torch.no_grad(), seeded(task.seed):
                    call(model, copied(few))
            except Exception:
                # A user's model may raise anything.
                return CallTime(0.0)
            took = time.perf_counter() - started
            seconds, spent = min(seconds, took), spent + took
            if seconds < _FAST_S or (number and spent > _TIMED_S):
                break
        return CallTime(seconds / _FEW)


def to_fault(error: AutocutError) -> Fault:
    """Turn `error` into a fault with the same message and hint."""
    return Fault(error.message, error.hint)


def try_build(task: Task, faults: list[Fault]) -> nn.Module | None:
    """Build the model. If that fails, return None, and `faults` gets the reason."""
    if not callable(task.model) or isinstance(task.model, nn.Module):
        return None  # the check of the settings reports it
    try:
        return task.build_model()
    except AutocutError as error:
        faults.append(to_fault(error))
        return None


def parameter_faults(model: nn.Module) -> Iterator[Fault]:
    """Parameters that are missing, all frozen, or not finite."""
    parameters = list(model.named_parameters())
    if not parameters:
        yield Fault(
            "task.model must have parameters, got none", "register layers as attributes or in nn.ModuleList, not in a plain list"
        )
    elif not any(parameter.requires_grad for _, parameter in parameters):
        yield Fault(
            "task.model must have parameters that require grad, got none", "model.requires_grad_(True) before it is returned"
        )
    for name, parameter in parameters:
        if not parameter.detach().isfinite().all():
            yield Fault(
                f"task.model must have finite weights, got NaN or infinity in {name}", "check the checkpoint that is loaded"
            )
            return


def try_again(task: Task, model: nn.Module, faults: list[Fault]) -> nn.Module | None:
    """Build another model, and find out whether it is trained. `faults` gets what fails, and that it is the same object again."""
    try:
        another = task.build_model()
        if _unwrapped(another) is _unwrapped(model):
            faults.append(Fault("task.model must build a new module each time, got the same one", "build it inside the function"))
        _ = task.is_pretrained
    except AutocutError as error:
        faults.append(to_fault(error))
        return None
    return another


def folding_faults(task: Task, model: nn.Module, inputs: Inputs) -> Iterator[Fault]:
    """A model that answers otherwise after its computed weights were folded."""
    if not task.folded.weights:
        return
    with torch.no_grad(), seeded(task.seed):
        expected = call(task.build_unfolded(), copied(inputs))
        answered = call(model, copied(inputs))
    if not torch.allclose(expected, answered, rtol=1e-3, atol=1e-5, equal_nan=True):
        names = [name for names in task.folded.weights.values() for name in names]
        yield Fault(
            f"task.model must answer the same when the computed weight {names[0]} is folded, "
            f"got a difference of {float((expected - answered).abs().max()):.3g}",
            "call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') before the model is returned",
        )


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.model if isinstance(model, OneOutput) else model


def run_faults(task: Task, model: nn.Module, name: str, batch: Batch, *, briefly: bool = False) -> Iterator[Fault]:
    """A model that fails on a batch, changes it, does not fit the kind, answers differently twice, or whose loss is not finite.

    Where another split has shown that the model answers alike twice and gives a row for each example, `briefly` spares these calls.
    """
    inputs, targets = batch
    given, tried = copied(inputs), inputs
    try:
        with torch.no_grad(), seeded(task.seed):
            outputs = again = call(model, given)
            answers, change = [(outputs, batch_length(inputs))], changed_inputs_fault(given, inputs)
            if not briefly and not change:
                again, tried = call(model, inputs), take(inputs, 1)
                answers.append((call(model, tried), 1))
    except AutocutError as error:
        yield to_fault(error)
        return
    except Exception as error:
        # A user's model may raise anything.
        yield Fault(
            f"task.model must run on a batch of {name} ({_shapes(tried)}), got {describe_error(error, task.folder)}",
            _run_hint(error, inputs) if tried is inputs else "a served model gets single examples, too",
        )
        return
    if fault := change or output_batch_fault(answers):
        yield fault
        return
    fault = _kind_fault(task, name, inputs, outputs, targets)
    if fault is not None:
        yield Fault(f"task.{name}: {fault.message}", fault.hint)
        return
    if not torch.equal(outputs.nan_to_num(), again.nan_to_num()):
        yield Fault(
            f"task.model must answer the same twice in eval mode, got a difference of {float((outputs - again).abs().max()):.3g}",
            "use nn.Dropout, or functional.dropout(x, training=self.training)",
        )
    yield from judging_faults(task, name, outputs, targets)


def _run_hint(error: Exception, inputs: Inputs) -> str:
    """Return what to change where the model fails on a batch of its own data."""
    if "CUDA" in str(error):
        return CPU_HINT
    if any(tensor.dtype == torch.float64 for tensor in tensors(inputs).values()):
        return "give the inputs as float32: .float()"
    if "dtype" in str(error) and any(tensor.dtype == torch.uint8 for tensor in tensors(inputs).values()):
        return "give the inputs as float32, such as pixels / 255; or let the model convert them"
    return "check the shapes and dtypes of the first layer"


def _shapes(inputs: Inputs) -> str:
    """Shapes and dtypes, for a message."""
    return ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}".replace("torch.", "") for tensor in tensors(inputs).values())


def _kind_fault(task: Task, name: str, inputs: Inputs, outputs: Tensor, targets: Tensor) -> Fault | None:
    """Return a fault if the task's kind refuses the batch. A kind accepts everything if loss and metric are the task's own."""
    if task.loss is not None and task.metric is not None:
        return None
    kind = task.metric_kind
    return (
        kind.output_fault(outputs, targets)
        or kind.target_fault(outputs, _sampled_targets(task, name))
        or kind.input_fault(inputs, targets)
    )


def _sampled_targets(task: Task, name: str) -> Tensor:
    dataset = task.train_data if name == "train" else task.validation_data
    batches = list(task.loader(dataset, 256, spread(length(dataset), SAMPLE)))
    # Rows may be longer in some batches than in others. `_shape_faults` reports that.
    flat = not batches[0][1].is_floating_point() or len({targets.shape[1:] for _, targets in batches}) > 1
    return torch.cat([targets.flatten() if flat else targets for _, targets in batches])


@dataclass(frozen=True)
class WorkerQuestion:
    """What another process must answer: it loads `pickled`, and finds the same `fingerprint` of the task."""

    pickled: bytes
    fingerprint: str


def question_for_worker(task: Task, model: nn.Module | None, faults: list[Fault]) -> WorkerQuestion | None:
    """Return what a worker is asked; None where the model cannot be pickled or the task not be read, which `faults` then tells.

    `model` is the task's model if it was built already. If it cannot be built or the data cannot be read, this gives the same fault
    as the earlier checks.
    """
    pickled = io.BytesIO()
    try:
        pickle.dump(task.build_model() if model is None else model, pickled)
        return WorkerQuestion(pickled.getvalue(), task.fingerprint)
    except AutocutError as error:
        if (fault := to_fault(error)) not in faults:
            faults.append(fault)
    except Exception as error:
        # Pickling runs the user's __reduce__ and __getstate__. Pickle's own errors have different types for different objects.
        faults.append(
            Fault(
                f"task.model must be picklable, got {describe_error(error, None)}",
                "define classes and functions at the top level of a module, no lambdas in a module",
            )
        )
    return None


def worker_faults(question: WorkerQuestion, path: str | Path | None, ask: AskWorker | None = None) -> list[Fault]:
    """Load the task and its model in another process and folder, as a worker does, and compare fingerprints."""
    with tempfile.TemporaryDirectory(prefix="autocut-check-") as folder:
        Path(folder, MODEL).write_bytes(question.pickled)
        answer = (ask or ask_fresh_process)(Path(folder), None if path is None else str(Path(path).expanduser().resolve()))
    if "error" in answer:
        return [
            Fault(
                f"a worker process must be able to load the task, got {answer['error']}",
                "make paths absolute with Path(__file__).parent, and keep what is needed at the top level of modules",
            )
        ]
    if answer["fingerprint"] != question.fingerprint:
        return [
            Fault(
                "a task must be the same in every process, got other data or other weights in a worker",
                "seed what is random in the data and load weights inside model()",
            )
        ]
    return []


def ask_fresh_process(folder: Path, path: str | None) -> dict[str, str]:
    """Call `load_as_worker` in a new process."""
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))}
    command = [sys.executable, "-m", "autocut.task.worker", str(folder), *([] if path is None else [path])]
    try:
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=WORKER_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {WORKER_TIMEOUT_S} s"}
    answer = folder / ANSWER
    if not answer.is_file():
        return {"error": f"exit code {process.returncode}"}
    return dict(json.loads(answer.read_text(encoding="utf-8")))
