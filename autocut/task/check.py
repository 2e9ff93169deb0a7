"""`autocut check`: every fault of a task at once, in seconds, each with a hint.

The check takes two training steps on a copy, and trains nothing else. Of the locked test split it uses only the length, hashes,
shapes and dtypes of the inputs, and whether all targets are the same. Large splits are sampled (`SAMPLE` examples, evenly spread)
so that the check stays fast. Only overlaps and targets of one value are searched in up to `MOST_EXAMPLES` examples. A slow model
is called with fewer examples.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from autocut.counting import format_count
from autocut.errors import AutocutError, Fault, nearest_hint, quoted
from autocut.task.answer_form import Answers, form_faults, form_remarks
from autocut.task.batch_check import data_batch_faults
from autocut.task.batches import Batch, cut, tensors
from autocut.task.dimensions import Dynamic, batch_faults, named_shape, setting_faults
from autocut.task.export_check import export_faults
from autocut.task.kinds import kinds
from autocut.task.layer_check import layer_faults, layer_setting_faults
from autocut.task.library_noise import quietly
from autocut.task.loading import load_task
from autocut.task.metric_check import metric_faults, untrained_faults
from autocut.task.model_check import (
    SAMPLE,
    AskWorker,
    CallTime,
    WorkerQuestion,
    folding_faults,
    parameter_faults,
    question_for_worker,
    run_faults,
    to_fault,
    try_again,
    try_build,
    worker_faults,
)
from autocut.task.other_models_check import student_faults, student_setting_faults, teacher_faults
from autocut.task.split_check import locked_shape_fault, overlap_faults, repeat_fault, train_eval_faults
from autocut.task.splits import Examples, Overview, length, look_over, spread
from autocut.task.target_check import class_remarks, target_faults
from autocut.task.task import Task
from autocut.task.training_check import training_faults

MOST_EXAMPLES = 100_000
SHAPE_EXAMPLES, SHAPE_BATCH = 128, 8
"""Number of examples whose shapes are compared, in small batches: padded batches differ more in length when they are small."""

_FEWEST_TO_SPLIT = 5
"""Of fewer examples, no validation split is taken: it is at most a fifth (`Task.validation_data`)."""
_SAMPLE_BATCH = 256
_BATCH = 32
_SCORING_S = 8.0
_CALL_S = 1.0
"""A call of the model in a check is given about so many seconds: the batch is smaller where it would take longer."""

_FUNCTIONS = ("loss", "metric", "summarize", "optimizer", "collate", "teacher")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_task(path: str | Path | None, ask: AskWorker | None = None, *, trains: bool = True) -> list[Fault]:
    """Load the task file `path` (None: the embedded digits task) and return all of its faults. A good task gives an empty list.

    A fault may hide others: a file that does not load, a model that cannot be built. It is returned with all faults that can still
    be found. `ask` loads the task in another process; None starts a process for it. `trains` is false where nothing will be trained
    but a model that is not pretrained: the training step is then left out for a pretrained one.
    """
    with quietly():
        try:
            task = load_task(path)
        except AutocutError as error:
            return [to_fault(error)]
        with ThreadPoolExecutor(1) as pool:
            # The worker loads the task beside the other checks, which for a large model takes as long as they do.
            asked: list[Future[list[Fault]]] = []
            faults = _examined(task, lambda question: asked.append(pool.submit(worker_faults, question, path, ask)), trains=trains)
            return faults + [fault for answer in asked for fault in answer.result() if fault not in faults]


def notes_of(path: str | Path | None) -> list[str]:
    """What a user should know about the task file `path`, which `check_task` has found good."""
    with quietly():
        return list(load_task(path).notes)


def faults_of(task: Task) -> list[Fault]:
    """All faults of `task` that can be found in this process."""
    with quietly():
        return _examined(task)


def _examined(task: Task, ask: Callable[[WorkerQuestion], None] | None = None, *, trains: bool = True) -> list[Fault]:
    """All faults that can be found in this process. `ask` gets what a worker must answer, as early as it is known.

    The task gets what its user should know beside them (`Task.notes`).
    """
    faults, remarks = list(_setting_faults(task)), list[str]()
    usable = _usable(task)
    is_usable, task = usable is task, usable
    splits = _read_splits(task, faults)
    has_test = _has_test(task, faults)
    batches = {name: batch for name in splits if (batch := _first_batch(task, name, splits[name], faults)) is not None}
    if not all(_has_batch_first(task, name, splits[name], faults) for name in batches):
        batches = {}  # the other split would give the same faults again, and nothing else can be judged
    dynamic = None if any(setting_faults(task.dynamic)) else task.dynamic
    shape_faults = list(_shape_faults(task, {name: splits[name] for name in batches}, dynamic))
    faults += [*shape_faults, *train_eval_faults(task)]
    if batches or not splits:
        views = _look_over(task, splits, faults, has_test=has_test)
        found = list(target_faults(task, views))
        faults += [*overlap_faults(views), *found]
        remarks += class_remarks(task, views)
        if found:
            batches.pop("validation", None)  # what its metric gives would only follow from this
    if has_test and batches and not shape_faults:
        faults += _locked_shape_faults(task, batches)
    model = try_build(task, faults)
    another = None
    if model is not None:
        faults += parameter_faults(model)
        another = try_again(task, model, faults)
    if ask is not None and is_usable and (question := question_for_worker(task, another, faults)):
        ask(question)
    if model is None:
        return faults
    if task.kind in kinds:
        faults += _answer_faults(
            task, model, batches, None if shape_faults else dynamic, remarks, fixed_shapes=not shape_faults, trains=trains
        )
    task.remark(remarks)
    return faults


def _answer_faults(
    task: Task,
    model: nn.Module,
    batches: Mapping[str, Batch],
    dynamic: Dynamic | None,
    remarks: list[str],
    *,
    fixed_shapes: bool,
    trains: bool,
) -> list[Fault]:
    """The faults of the answers of the model, its teacher and its students; then whether the model can be trained and exported.

    `remarks` gets what is no fault.
    """
    if not batches:
        return []
    time = CallTime.of(task, model, next(iter(batches.values()))[0])
    batches = {name: cut(batch, time.examples(_CALL_S, least=3, most=_BATCH)) for name, batch in batches.items()}
    for number, (name, batch) in enumerate(batches.items()):
        if found := list(run_faults(task, model, name, batch, briefly=number > 0)):
            return found  # the other split would give the same faults again
    faults: list[Fault] = []
    if "validation" in batches:
        if fixed_shapes:
            faults += untrained_faults(task, model, time.examples(_SCORING_S, least=32, most=512))
        # The metrics of the kinds are defined on any examples, one's own perhaps only on many.
        is_own = task.metric is not None or task.summarize is not None
        fewest = None if is_own else time.examples(_CALL_S, least=4, most=_BATCH)
        faults += [fault for fault in metric_faults(task, model, task.batch_size, fewest) if fault not in faults]
    if "train" in batches:
        inputs, _ = batches["train"]
        answers = Answers.of(task, model, batches["train"])
        faults += form_faults(task, answers)
        remarks += form_remarks(task, answers)
        faults += [*folding_faults(task, model, inputs), *teacher_faults(task, model, inputs), *student_faults(task, model, inputs)]
        faults += layer_faults(task, model, inputs)
        if trains or not task.is_pretrained:
            faults += training_faults(task, model, cut(batches["train"], min(task.batch_size, time.examples(_CALL_S, 2, _BATCH))))
        faults += export_faults(task, model, inputs, dynamic)
    return faults


def _usable(task: Task) -> Task:
    """Return a task without the settings that have a fault of their own: each would give further faults that tell nothing new."""
    wrong: dict[str, Any] = {name: None for name in _FUNCTIONS if not callable(getattr(task, name) or len)}
    if not _is_integer(task.batch_size) or task.batch_size < 1:
        wrong["batch_size"] = _BATCH
    if not callable(task.model) or isinstance(task.model, nn.Module):
        wrong["model"] = None
    if not wrong:
        return task
    usable = copy.copy(task)
    for name, value in wrong.items():
        object.__setattr__(usable, name, value)
    return usable


def _has_batch_first(task: Task, name: str, dataset: Examples, faults: list[Fault]) -> bool:
    """Whether the first dimension of every tensor of the split is the batch. If not, `faults` gets what is wrong."""
    try:
        found = list(data_batch_faults(task, name, dataset))
    except Exception as error:
        # A user's collate function may accept only some batch sizes.
        found = [to_fault(task.data_error(name, error))]
    faults += found
    return not found


def _setting_faults(task: Task) -> Iterator[Fault]:
    if not isinstance(task.name, str) or not _NAME.fullmatch(task.name):
        yield Fault(
            f"task.name must be letters, digits, '.', '_' or '-', got {quoted(task.name)}",
            "it names the study's folder, such as 'fashion-cnn'",
        )
    if task.kind not in kinds:
        hint = nearest_hint(str(task.kind), kinds.names()) or "for something else keep a kind, and give loss= and metric="
        yield Fault(f"task.kind must be one of {', '.join(kinds.names())}, got {quoted(task.kind)}", hint)
    yield from _number_faults(task)
    yield from _function_faults(task)
    yield from student_setting_faults(task)
    yield from layer_setting_faults(task.features)
    yield from setting_faults(task.dynamic)
    if task.output is not None and (not isinstance(task.output, (str, int)) or isinstance(task.output, bool)):
        yield Fault(f"task.output must be a name or a position, got {quoted(task.output)}", "output='logits', or output=0")
    if task.pretrained not in (None, True, False):
        yield Fault(
            f"task.pretrained must be True, False or None, got {quoted(task.pretrained)}", "leave it out to let autocut find out"
        )
    if not isinstance(task.share_examples, bool):
        yield Fault(f"task.share_examples must be True or False, got {quoted(task.share_examples)}", "share_examples=False")


def _number_faults(task: Task) -> Iterator[Fault]:
    for name, least in (("batch_size", 1), ("epochs", 1), ("seed", 0)):
        value = getattr(task, name)
        if not _is_integer(value) or value < least:
            yield Fault(f"task.{name} must be an integer of at least {least}, got {quoted(value)}", f"{name}={max(least, 1)}")
    sizes = task.serving_batch_sizes
    is_list = isinstance(sizes, (tuple, list)) and len(sizes) > 0 and all(_is_integer(size) and size >= 1 for size in sizes)
    if not is_list or list(sizes) != sorted(set(sizes)):
        yield Fault(
            f"task.serving_batch_sizes must be rising integers of at least 1, got {quoted(sizes)}",
            "serving_batch_sizes=(1, 32): latency is measured at the first, throughput at the last",
        )


def _function_faults(task: Task) -> Iterator[Fault]:
    for name in ("model", *_FUNCTIONS):
        value = getattr(task, name)
        if not callable(value) and (value is not None or name == "model"):
            yield Fault(f"task.{name} must be a function, got {type(value).__name__}", "give the function itself, not its result")
        elif name in ("model", "teacher") and isinstance(value, nn.Module):
            yield Fault(f"task.{name} must be a function that builds the model, got the model itself", f"{name}=build_{name}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_splits(task: Task, faults: list[Fault]) -> dict[str, Examples]:
    """Return train and validation by name. A split that is empty or cannot be read is left out, and `faults` gets the reason."""
    splits: dict[str, Examples] = {}
    for name in ("train", "validation"):
        try:
            dataset = getattr(task, f"{name}_data")
        except AutocutError as error:
            if (fault := to_fault(error)) not in faults:  # validation that is split off train fails as train does
                faults.append(fault)
            continue
        if name == "validation" and task.validation is None and not length(dataset):
            if "train" in splits:  # an empty one was told
                faults.append(_too_few_fault(length(splits["train"])))
        elif _has_examples(name, length(dataset), faults):
            splits[name] = dataset
    return splits


def _too_few_fault(count: int) -> Fault:
    """The fault of a train split that is too small for a fifth of it to be one example of validation."""
    return Fault(
        f"task.train must hold at least {format_count(_FEWEST_TO_SPLIT, 'example')} where validation is split off it, got {count}",
        "add examples, or give validation= examples of their own",
    )


def _has_test(task: Task, faults: list[Fault]) -> bool:
    """Whether test can be read and is not empty. If not, `faults` gets the reason."""
    try:
        return _has_examples("test", len(task.locked_test), faults)
    except AutocutError as error:
        faults.append(to_fault(error))
        return False


def _has_examples(name: str, count: int, faults: list[Fault]) -> bool:
    if count == 0:
        faults.append(Fault(f"task.{name} must hold examples, got 0", "check the path and the filter of the split"))
    return count > 0


def _first_batch(task: Task, name: str, dataset: Examples, faults: list[Fault]) -> Batch | None:
    """Return the first batch, at most `_BATCH` examples. If the split cannot be read, return None, and `faults` gets the reason."""
    try:
        batch = next(iter(task.loader(dataset, _BATCH)))
        fault = _number_fault(task, name, dataset) or (repeat_fault(task, dataset) if name == "validation" else None)
    except Exception as error:
        # A user's dataset or collate function may raise anything.
        faults.append(to_fault(task.data_error(name, error)))
        return None
    if fault is not None:
        faults.append(fault)
    return batch


def _number_fault(task: Task, name: str, dataset: Examples) -> Fault | None:
    """Return a fault if a number in the sampled examples is not finite."""
    indices = spread(length(dataset), SAMPLE)
    for number, (inputs, targets) in enumerate(task.loader(dataset, _SAMPLE_BATCH, indices)):
        for key, tensor in {**tensors(inputs), "targets": targets}.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                row = int((~tensor.isfinite()).reshape(len(tensor), -1).any(1).nonzero()[0])
                example = int(indices[number * _SAMPLE_BATCH + row])
                message = f"task.{name} must be finite, got NaN or infinity in {key} of example {example}"
                return Fault(message, "drop or impute such examples")
    return None


def _shape_faults(task: Task, splits: Mapping[str, Examples], dynamic: Dynamic | None) -> Iterator[Fault]:
    """The first input whose shape differs between batches, apart from what is free. An export fixes these shapes."""
    first: dict[str, Tensor] = {}
    for name, dataset in splits.items():
        try:
            batches = list(task.loader(dataset, SHAPE_BATCH, spread(length(dataset), SHAPE_EXAMPLES)))
        except Exception as error:
            # A user's collate function may accept only some batch sizes.
            yield to_fault(task.data_error(name, error))
            return
        for inputs, _ in batches:
            if faults := list(batch_faults(dynamic, inputs)):
                yield from faults
                return
            for key, tensor in tensors(inputs).items():
                known = first.setdefault(key, tensor)
                if named_shape(key, known.shape, dynamic) != named_shape(key, tensor.shape, dynamic):
                    yield _shape_fault(key, tuple(known.shape), tuple(tensor.shape))
                    return


def _locked_shape_faults(task: Task, batches: Mapping[str, Batch]) -> Iterator[Fault]:
    """A test split whose inputs have other shapes or dtypes than those of train."""
    try:
        fault = locked_shape_fault(task, batches["train"]) if "train" in batches else None
    except Exception:
        # `_look_over` reads the test split too, and reports the same error.
        return
    if fault is not None:
        yield fault


def _look_over(task: Task, splits: Mapping[str, Examples], faults: list[Fault], *, has_test: bool) -> dict[str, Overview]:
    """Read up to `MOST_EXAMPLES` examples of each split. `faults` gets why test cannot be read."""
    try:
        views = {name: look_over(dataset, task.loader, MOST_EXAMPLES) for name, dataset in splits.items()}
    except Exception:
        # `_first_batch` reports the same error.
        return {}
    try:
        if has_test:
            views["test"] = task.locked_test.look_over(MOST_EXAMPLES)
    except Exception as error:
        # No other check reads all of the test split, and at finalization this error would fail every point.
        faults.append(to_fault(task.data_error("test", error)))
    return views


def _shape_fault(key: str, first: tuple[int, ...], other: tuple[int, ...]) -> Fault:
    """The fault of an input with two shapes. If only sizes differ, the hint spells the free dimensions that allow both."""
    hint = "pad to one length in collate="
    if len(first) == len(other):
        differing = [axis for axis in range(1, len(first)) if first[axis] != other[axis]]
        names = ", ".join(f'{axis}: "{"length" if axis == 1 else f"size_{axis}"}"' for axis in differing)
        hint += f', or let it differ: dynamic={{"{key}": {{{names}}}}}'
    return Fault(f"task's {key} must have one shape beyond the batch, got {first} and {other}", hint)
