"""Identity of a task's data: relabelled, reordered or replaced examples must never find the models of others.

`Task.fingerprint` hashes the length and a sample of each split (scheme 1, all that studies until November 2026 have). Scheme 2 adds
all targets and all of validation. Inputs of train may be augmented and take long to read, so for them the sample stands, and size
and time of the files that the dataset names. What takes too long to read whole is read in part, and the user is told. How much is
decided once, when a study is begun (`plan_readings`), and kept with the study, so that every process finds the same hash.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from autocut.counting import format_count
from autocut.errors import StudyError
from autocut.task.batches import tensor_identity, tensors
from autocut.task.splits import Examples, length, spread, unwrap
from autocut.task.task import FINGERPRINT_EXAMPLES, Task, seeded

_FACT = "data_identity"
_READ_S = 2.0
"""A split that takes longer to read is hashed in part, unless the user wants all of it."""
_TIMED = 64
_TARGETS = ("targets", "labels", "tensors")
_MOST_FILES = 10_000
_STARTED, _LOADING_S = time.time(), 5.0
"""A file that has changed since then may be written whenever the task is loaded, here or in a process beside this one: its time
identifies nothing."""
_DEPTH, _MOST_PARTS = 3, 100
_ELSEWHERE = "restore the data, or search into another folder: --out"


@dataclass(frozen=True)
class Reading:
    """How much of one split is hashed.

    `examples` are read as a training reads them, evenly spread over the split; of these the targets count, and with `inputs` the
    inputs too. `labels`: all targets, from an attribute of the dataset. `files`: size and time of the files that it names.
    """

    examples: int
    inputs: bool
    labels: bool
    files: bool


@dataclass(frozen=True)
class DataIdentity:
    """What was read of each split, and the hashes by what they cover."""

    readings: Mapping[str, Reading]
    hashes: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Hash of everything."""
        return hashlib.sha256(repr(sorted(self.hashes.items())).encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """What a study keeps of it, as JSON: `identify_as_begun` takes it."""
        readings = {split: asdict(reading) for split, reading in self.readings.items()}
        return {_FACT: {"readings": readings, "hashes": dict(self.hashes)}}


def plan_readings(task: Task, *, rehash: bool = False) -> dict[str, Reading]:
    """Decide how much of each split is hashed; with `rehash` everything, however long it takes.

    Raises:
        TaskError: the data cannot be read.
    """
    return {split: _plan(task, split, dataset, rehash=rehash) for split, dataset in _splits(task).items()}


def identify(task: Task, readings: Mapping[str, Reading]) -> DataIdentity:
    """Hash the data.

    Raises:
        TaskError: the data cannot be read.
    """
    hashes: dict[str, str] = {}
    for split, dataset in _splits(task).items():
        reading = readings[split]
        try:
            if reading.examples:
                what = "examples" if reading.inputs else "targets"
                hashes[f"{what} of {split}"] = _hash_examples(task, dataset, reading)
            if reading.labels:
                hashes[f"labels of {split}"] = _hash_labels(dataset)
            if reading.files and (files := _files(dataset)):
                hashes[f"files of {split}"] = _hash_files(files)
        except Exception as error:
            # A user's dataset or collate function may raise anything; the user must fix it.
            raise task.data_error(split, error) from error
    return DataIdentity(readings, hashes)


def identify_as_begun(task: Task, study: Path, facts: Mapping[str, Any], *, rehash: bool = False) -> DataIdentity | None:
    """Hash as much of the data as was hashed when `study` was begun; None for a study of scheme 1.

    Args:
        task: The task.
        study: Folder of the study, to be named.
        facts: The facts of the study.
        rehash: Whether the user wants everything hashed.

    Raises:
        StudyError: the data differ, or not everything was hashed then although the user wants it.
        TaskError: the data cannot be read.
    """
    known = facts.get(_FACT)
    readings = {} if known is None else {split: Reading(**reading) for split, reading in known["readings"].items()}
    if rehash and not (readings and all(_is_whole(task, split, reading) for split, reading in readings.items())):
        raise StudyError(
            f"study {study} was begun without --rehash, so it has no hash of all its inputs",
            "leave --rehash out, or search into another folder: --out",
        )
    if known is None:
        return None
    found = identify(task, readings)
    hashes: dict[str, str] = known["hashes"]
    changed = [what for what in dict.fromkeys([*hashes, *found.hashes]) if hashes.get(what) != found.hashes.get(what)]
    if changed:
        hint = _ELSEWHERE
        if all(what.startswith("files") for what in changed):
            hint = f"files are known by size and time of change: copy them with cp -p, or {_ELSEWHERE}"
        raise StudyError(f"study {study} was made with other data: the {', the '.join(changed)} have changed", hint)
    return found


def reading_notes(task: Task, readings: Mapping[str, Reading]) -> tuple[str, ...]:
    """Say which split is hashed only in part, for a person."""
    counts = {split: length(dataset) for split, dataset in _splits(task).items()}
    notes = []
    for split, reading in readings.items():
        is_enough = reading.labels and not reading.inputs  # the inputs of train are known by their sample and files
        if reading.examples < counts[split] and not is_enough:
            hashed = min(max(reading.examples, FINGERPRINT_EXAMPLES), counts[split])
            rest = " and all targets" if reading.labels else ""
            notes.append(
                f"identity of the data: {hashed:,} of {format_count(counts[split], f'{split} example')}{rest} are hashed, "
                "because reading takes long: other changes are not noticed. A study that is begun with --rehash hashes all"
            )
    return tuple(notes)


def _splits(task: Task) -> dict[str, Examples]:
    return {"train": task.train_data, "validation": task.validation_data}


def _is_whole(task: Task, split: str, reading: Reading) -> bool:
    return reading.inputs and reading.examples == length(_splits(task)[split])


def _plan(task: Task, split: str, dataset: Examples, *, rehash: bool) -> Reading:
    count = length(dataset)
    if rehash:
        return Reading(count, inputs=True, labels=False, files=False)
    base, _ = unwrap(dataset, torch.arange(0))
    # What a plain TensorDataset gives is always the same. Any other dataset may augment what it trains on.
    inputs = split == "validation" or type(base) is TensorDataset
    labelled = _labels(dataset) is not None
    stays = all(file.stat().st_mtime < _STARTED - _LOADING_S for file in _files(dataset))
    if labelled and not inputs:
        return Reading(0, inputs=False, labels=True, files=stays)
    try:
        fitting = int(_READ_S / _seconds_each(task, dataset))
    except Exception as error:
        # As above: a user's dataset.
        raise task.data_error(split, error) from error
    if fitting >= count:
        return Reading(count, inputs=inputs, labels=False, files=not inputs and stays)
    return Reading(fitting, inputs=inputs, labels=labelled, files=stays)


def _seconds_each(task: Task, dataset: Examples) -> float:
    """Seconds that reading and hashing one example takes. The first one, which may open files, does not count."""
    timed = min(length(dataset), _TIMED)
    _hash_examples(task, dataset, Reading(1, inputs=True, labels=False, files=False))
    started = time.perf_counter()
    _hash_examples(task, dataset, Reading(timed, inputs=True, labels=False, files=False))
    return max(time.perf_counter() - started, 1e-9) / timed


def _hash_examples(task: Task, dataset: Examples, reading: Reading) -> str:
    digest = hashlib.sha256()
    with seeded(task.seed):
        for inputs, targets in task.loader(dataset, task.batch_size, spread(length(dataset), reading.examples)):
            for name, tensor in {**(tensors(inputs) if reading.inputs else {}), "": targets}.items():
                digest.update(tensor_identity(name, tensor))
    return digest.hexdigest()


def _hash_labels(dataset: Examples) -> str:
    labels = _labels(dataset)
    return hashlib.sha256(b"none" if labels is None else tensor_identity("", labels)).hexdigest()


def _labels(dataset: Examples) -> Tensor | None:
    """All targets of `dataset` without reading an example; None where no attribute of it, or of what it wraps, has them."""
    base, indices = unwrap(dataset, torch.arange(length(dataset)))
    count = length(base)
    for holder in _wrapped(base, count):
        for name in _TARGETS:
            value = _attribute(holder, name)
            labels = _to_tensor(value[-1] if name == "tensors" and isinstance(value, tuple) and value else value)
            if labels is not None and labels.dim() > 0 and len(labels) == count:
                return labels[indices]
    return None


def _to_tensor(value: Any) -> Tensor | None:
    """Numbers or texts as a tensor, texts as their characters; None for anything else."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, (list, tuple, np.ndarray)):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        return None  # rows of different lengths
    if array.dtype.kind == "U" and array.size:
        array = np.ascontiguousarray(array).view(np.int32).reshape(*array.shape, -1)
    return torch.from_numpy(np.array(array)) if array.dtype.kind in "biuf" and array.dtype.isnative else None


def _wrapped(dataset: Any, count: int | None, depth: int = _DEPTH) -> Iterator[Any]:
    """`dataset` and the datasets inside it; with `count` those of this length alone."""
    yield dataset
    if depth:
        values = getattr(dataset, "__dict__", {}).values()
        # A `ConcatDataset` has a list of them.
        for inner in (one for value in values for one in (value if isinstance(value, (list, tuple)) else [value])[:_MOST_PARTS]):
            if isinstance(inner, Dataset) and (count is None or _length(inner) == count):
                yield from _wrapped(inner, count, depth - 1)


def _length(dataset: Examples) -> int | None:
    try:
        return length(dataset)
    except (TypeError, NotImplementedError):
        return None  # a dataset that is iterated


def _attribute(holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name, None)
    except Exception:
        return None  # a property of the user's own may raise anything: then the targets are read example by example


def _files(dataset: Examples) -> list[Path]:
    """Files that the attributes of `dataset` name, alone or in lists, in their order; of very many, evenly spread ones."""
    base, _ = unwrap(dataset, torch.arange(0))
    found: dict[Path, None] = {}
    for holder in _wrapped(base, None):
        values = list(getattr(holder, "__dict__", {}).values())
        roots = [Path(value) for value in values if _is_name(value) and Path(value).is_absolute() and _is(Path.is_dir, Path(value))]
        for value in values:
            found.update(dict.fromkeys(_files_in(value, roots)))
    files = list(found)
    return [files[index] for index in spread(len(files), _MOST_FILES)]


def _files_in(value: Any, roots: list[Path]) -> Iterable[Path]:
    if isinstance(value, np.memmap):
        value = value.filename
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "UO":
        value = value.tolist()
    names = value if isinstance(value, (list, tuple)) else [value]
    names = [names[index] for index in spread(len(names), _MOST_FILES)]  # looking at a million files takes seconds
    for position, name in enumerate(names):
        # An image folder lists pairs (file, class).
        first = name[0] if isinstance(name, (list, tuple)) and name else name
        file = _file(first, roots) if _is_name(first) else None
        if file is not None:
            yield file
        elif position == 0:
            return  # a list of something else, such as texts


def _file(name: str | Path, roots: list[Path]) -> Path | None:
    """The file `name`, if it is absolute or below one of `roots`: the working directory differs between processes."""
    places = [Path(name)] if Path(name).is_absolute() else [root / name for root in roots]
    return next((place for place in places if _is(Path.is_file, place)), None)


def _is_name(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and 0 < len(value) < 1024)


def _is(test: Any, path: Path) -> bool:
    try:
        return bool(test(path))
    except (OSError, ValueError):
        return False  # a text that cannot be a path


def _hash_files(files: Iterable[Path]) -> str:
    """Hash name, size and time of each file; no folder, so that a moved data set stays the same."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
