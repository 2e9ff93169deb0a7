"""The part of `autocut check` that compares splits: validation with itself and with train, the locked test split with both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import Subset

from autocut.counting import format_count
from autocut.errors import Fault
from autocut.task.batches import Batch, tensors
from autocut.task.dimensions import NamedShape, named_shape
from autocut.task.splits import Examples, Overview, length, spread
from autocut.task.task import Task

_SAMPLE = 128


def repeat_fault(task: Task, validation: Examples) -> Fault | None:
    """Return a fault if the first batch of validation changes when it is read again."""
    (inputs, targets), (inputs_again, targets_again) = (next(iter(task.loader(validation, 32))) for _ in range(2))
    pairs = zip((*tensors(inputs).values(), targets), (*tensors(inputs_again).values(), targets_again), strict=True)
    if all(torch.equal(one, other) for one, other in pairs):
        return None
    if task.validation is not None:
        return Fault("task.validation must give the same examples each time, got others", "leave random augmentation to train")
    source = "train" if task.train_eval is None else "train_eval"
    hint = "leave random augmentation to train"
    if source == "train":
        hint = "train_eval= the same examples without augmentation, or validation= examples of their own"
    return Fault(f"task.{source}, off which validation is split, must give the same examples each time, got others", hint)


def train_eval_faults(task: Task) -> Iterator[Fault]:
    """A `train_eval` that is not used, or whose targets are not those of train."""
    if task.train_eval is None:
        return
    if task.validation is not None:
        yield Fault(
            "task.train_eval must be left out where task.validation is given, got both",
            "validation is split off train_eval only where there is no validation=",
        )
        return
    try:
        train, plain = (_whole(part) for part in (task.train_data, task.validation_data))
        indices = spread(length(train), _SAMPLE)
        pairs = list(zip(task.loader(train, 32, indices), task.loader(plain, 32, indices), strict=True))
    except Exception:
        # `autocut check` reads both splits itself, and reports the same error.
        return
    for (_, targets), (_, plain_targets) in pairs:
        # Masks and boxes move with their augmented pictures; the class of an example stays.
        if targets.dim() == 1 and not torch.equal(targets, plain_targets):
            yield Fault(
                "task.train_eval must hold the examples of train in the same order, got other targets",
                "build both from the same files, without shuffling",
            )
            return


def _whole(part: Examples) -> Examples:
    """Return the dataset that `part` was split off."""
    return part.dataset if isinstance(part, Subset) else part


def locked_shape_fault(task: Task, batch: Batch) -> Fault | None:
    """Return a fault if an input of the locked test split has another shape or dtype than in `batch`, a batch of train.

    An export fixes both, so such a split would fail at finalization, after the search.
    """
    dynamic = task.dynamic
    known = {name: (named_shape(name, tensor.shape, dynamic)[1:], tensor.dtype) for name, tensor in tensors(batch[0]).items()}
    for found in task.locked_test.input_forms(_SAMPLE):
        if found.keys() != known.keys():
            return Fault(
                f"task.test must have the inputs of train {', '.join(known)}, got {', '.join(found)}",
                "build both splits with the same code",
            )
        for name, (shape, dtype) in known.items():
            test_shape, test_dtype = named_shape(name, (0, *found[name][0]), dynamic)[1:], found[name][1]
            if test_shape != shape:
                return Fault(
                    f"task's {name} must have one shape beyond the batch, got {_beyond(shape)} in train and {_beyond(test_shape)} "
                    "in test",
                    "pad to one length in all splits",
                )
            if test_dtype != dtype:
                return Fault(
                    f"task's {name} must have one dtype, got {dtype} in train and {test_dtype} in test".replace("torch.", ""),
                    "convert it in the dataset",
                )
    return None


def _beyond(shape: NamedShape) -> str:
    """Show a shape without the batch, such as (.., 30)."""
    return f"({', '.join(['..', *map(str, shape)])})"


def overlap_faults(views: Mapping[str, Overview]) -> Iterator[Fault]:
    """Examples of one split in another, by hashes of inputs.

    Real data has some duplicates (short texts, tables of few columns). So the limit is 1%, or three times the share of duplicates
    within train if that is more.
    """
    hashes = {name: view.inputs for name, view in views.items()}
    repeated = 1 - len(np.unique(hashes["train"])) / len(hashes["train"]) if "train" in hashes else 0.0
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if first in hashes and second in hashes:
            shared = int(np.isin(hashes[second], hashes[first]).sum())
            if shared > max(0.01, 3 * repeated) * len(hashes[second]):
                examples = format_count(len(hashes[second]), "example")
                yield Fault(
                    f"task.{first} and task.{second} must not overlap, got {shared} of {examples} in both",
                    "split once, before anything else; leave validation= out to have it split off train",
                )
