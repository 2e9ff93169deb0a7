"""`autocut check`: every fault of a task at once, in seconds, each with a hint.

Nothing is trained and the locked test split is not read: its length and the hashes of its inputs are all that is looked at.
What is large is sampled (`SAMPLE` examples, evenly spread), so that the check stays quick; only overlaps are looked for in all
examples that can be fetched in whole batches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autocut.errors import AutocutError, Fault, nearest_hint
from autocut.task.batches import Batch, tensors
from autocut.task.kinds import kinds
from autocut.task.loading import load_task
from autocut.task.model_check import (
    SAMPLE,
    AskWorker,
    build,
    build_faults,
    export_faults,
    parameter_faults,
    run_faults,
    teacher_faults,
    untrained_faults,
    worker_faults,
)
from autocut.task.splits import Examples, input_hashes, length, spread
from autocut.task.task import Task

OVERLAP_EXAMPLES = 100_000
SHAPE_EXAMPLES, SHAPE_BATCH = 128, 8
"""Examples of a split whose batches' shapes are compared. Small batches, because a large one is as long as the longest of many."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_task(path: str | Path | None, ask: AskWorker | None = None) -> list[Fault]:
    """Load the task file `path` (None: the embedded digits task) and return all of its faults; none is an empty list.

    A fault that hides others (a file that does not load, a model that cannot be built) is told with those that can still be
    seen. `ask` asks another process what it finds; None starts one.
    """
    try:
        task = load_task(path)
    except AutocutError as error:
        return [Fault(error.message, error.hint)]
    faults = faults_of(task)
    return faults + [fault for fault in worker_faults(task, path, ask) if fault not in faults]


def faults_of(task: Task) -> list[Fault]:
    """All the faults of `task` that can be seen in this process."""
    faults = list(_setting_faults(task))
    splits = _Splits(task)
    faults += splits.faults
    batches = {name: batch for name in splits.read if (batch := _batch(task, splits, name, faults)) is not None}
    varying = list(_shape_faults(task, {name: splits.read[name] for name in batches}))
    faults += varying
    faults += _overlap_faults(task, splits)
    model = build(task, faults)
    if model is None:
        return faults
    faults += parameter_faults(model)
    faults += build_faults(task, model)
    if task.kind in kinds:
        for name, batch in batches.items():
            found = list(run_faults(task, model, name, batch))
            faults += found
            if found:
                break  # the other split would tell the same again
        else:
            if not varying:
                faults += untrained_faults(task, model, batches.get("validation"))
            if "train" in batches:
                faults += teacher_faults(task, model, batches["train"][0])
                faults += export_faults(model, batches["train"][0])
    return faults


class _Splits:
    """The splits that can be read, by name, and the faults of those that cannot; test counts only with its length."""

    def __init__(self, task: Task) -> None:
        self.read: dict[str, Examples] = {}
        self.faults: list[Fault] = []
        self.has_test = False
        for name in ("train", "validation"):
            dataset = self._try(partial(getattr, task, f"{name}_data"))
            if dataset is not None and self._has_examples(name, length(dataset)):
                self.read[name] = dataset
        count = self._try(lambda: len(task.locked_test))
        self.has_test = count is not None and self._has_examples("test", count)

    def _try(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except AutocutError as error:
            fault = Fault(error.message, error.hint)
            if fault not in self.faults:  # validation that is split off train fails as train does
                self.faults.append(fault)
        return None

    def _has_examples(self, name: str, count: int) -> bool:
        if count == 0:
            self.faults.append(Fault(f"task.{name} must hold examples, got 0", "check the path and the filter of the split"))
        return count > 0


def _setting_faults(task: Task) -> Iterator[Fault]:
    if not isinstance(task.name, str) or not _NAME.fullmatch(task.name):
        yield Fault(
            f"task.name must be letters, digits, '.', '_' or '-', got {task.name!r}",
            "it names the study's folder, such as 'fashion-cnn'",
        )
    if task.kind not in kinds:
        hint = nearest_hint(str(task.kind), kinds) or "for something else keep a kind, and give loss= and metric="
        yield Fault(f"task.kind must be one of {', '.join(kinds)}, got {task.kind!r}", hint)
    for name, least in (("batch_size", 1), ("epochs", 1), ("seed", 0)):
        value = getattr(task, name)
        if not _is_integer(value) or value < least:
            yield Fault(f"task.{name} must be an integer of at least {least}, got {value!r}", f"{name}={max(least, 1)}")
    sizes = task.serving_batch_sizes
    is_list = isinstance(sizes, (tuple, list)) and len(sizes) > 0 and all(_is_integer(size) and size >= 1 for size in sizes)
    if not is_list or list(sizes) != sorted(set(sizes)):
        yield Fault(
            f"task.serving_batch_sizes must be rising integers of at least 1, got {sizes!r}",
            "serving_batch_sizes=(1, 32): latency is measured at the first, throughput at the last",
        )
    for name in ("model", "loss", "metric", "summarize", "optimizer", "collate", "teacher"):
        value = getattr(task, name)
        if not callable(value) and (value is not None or name == "model"):
            yield Fault(f"task.{name} must be a function, got {type(value).__name__}", "give the function itself, not its result")
        elif name in ("model", "teacher") and isinstance(value, nn.Module):
            yield Fault(f"task.{name} must be a function that builds the model, got the model itself", f"{name}=build_{name}")
    if task.pretrained not in (None, True, False):
        yield Fault(f"task.pretrained must be True, False or None, got {task.pretrained!r}", "leave it out to have it found out")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _batch(task: Task, splits: _Splits, name: str, faults: list[Fault]) -> Batch | None:
    """Return the first batch, at most 32 examples; None, and a fault why, where the split cannot be read."""
    dataset = splits.read[name]
    try:
        batch = next(iter(task.loader(dataset, 32)))
        faults += _data_faults(task, name, dataset)
    except Exception as error:
        # A user's dataset or collate function: whatever it raises is told.
        told = task.data_error(name, error)
        faults.append(Fault(told.message, told.hint))
        return None
    return batch


def _data_faults(task: Task, name: str, dataset: Examples) -> list[Fault]:
    """Not a finite number in the sampled examples, or other examples when they are read again."""
    indices = spread(length(dataset), SAMPLE)
    for start, (inputs, targets) in enumerate(task.loader(dataset, 256, indices)):
        for key, tensor in {**tensors(inputs), "targets": targets}.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                row = int((~tensor.isfinite().flatten(1).all(1) if tensor.dim() > 1 else ~tensor.isfinite()).nonzero()[0, 0])
                example = int(indices[start * 256 + row])
                message = f"task.{name} must be finite, got NaN or infinity in {key} of example {example}"
                return [Fault(message, "drop or impute such examples")]
    if name == "validation" and not _is_same(*(next(iter(task.loader(dataset, 32))) for _ in range(2))):
        return [Fault("task.validation must give the same examples each time, got others", "leave random augmentation to train")]
    return []


def _shape_faults(task: Task, splits: Mapping[str, Examples]) -> Iterator[Fault]:
    """Inputs whose shape, beyond the batch, changes from batch to batch: every export fixes it."""
    first: dict[str, tuple[int, ...]] = {}
    for name, dataset in splits.items():
        try:
            batches = list(task.loader(dataset, SHAPE_BATCH, spread(length(dataset), SHAPE_EXAMPLES)))
        except Exception as error:
            # A collate function that takes some sizes of batch only.
            told = task.data_error(name, error)
            yield Fault(told.message, told.hint)
            return
        for inputs, _ in batches:
            for key, tensor in tensors(inputs).items():
                shape = first.setdefault(key, tuple(tensor.shape))
                if shape[1:] != tensor.shape[1:]:
                    yield Fault(
                        f"task's {key} must have one shape beyond the batch, got {shape} and {tuple(tensor.shape)}",
                        "pad to one length in collate=",
                    )
                    return


def _is_same(first: Batch, second: Batch) -> bool:
    pairs = zip((*tensors(first[0]).values(), first[1]), (*tensors(second[0]).values(), second[1]), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def _overlap_faults(task: Task, splits: _Splits) -> Iterator[Fault]:
    """Examples of one split in another, by hashes of inputs.

    Real data holds some duplicates (short texts, tables of few columns), so 1% is let pass, and three times what train repeats
    itself.
    """
    try:
        hashes = {name: input_hashes(dataset, task.loader, OVERLAP_EXAMPLES) for name, dataset in splits.read.items()}
    except Exception:
        # `_batch` tells what they raise.
        return
    try:
        if splits.has_test:
            hashes["test"] = task.locked_test.input_hashes(OVERLAP_EXAMPLES)
    except Exception as error:
        # Nothing else reads it before finalization, and then every point would fail.
        told = task.data_error("test", error)
        yield Fault(told.message, told.hint)
    repeated = 1 - len(np.unique(hashes["train"])) / len(hashes["train"]) if "train" in hashes else 0.0
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if first in hashes and second in hashes:
            shared = int(np.isin(hashes[second], hashes[first]).sum())
            if shared > max(0.01, 3 * repeated) * len(hashes[second]):
                yield Fault(
                    f"task.{first} and task.{second} must not overlap, got {shared} of {len(hashes[second])} examples in both",
                    "split once, before anything else; leave validation= out to have it split off train",
                )
