"""How a task's data is read: loaders that yield whole batches, and the locked test split.

**The lock.** The best of many trials on the validation split looks better than it is, so the test split must not influence the
choice. A `LockedSplit` gives out examples only through `open`, and `open` needs a `FinalizationKey`. Only
`autocut.task.finalization_key.issue_finalization_key` makes keys, and import-linter lets only `autocut.deploy` import that module.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any, Never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from autocut.errors import TaskError, quoted
from autocut.task.batches import Batch, Inputs, tensor_identity, tensors

Examples = Dataset[Any]
Collate = Callable[[list[Any]], Any]
Form = tuple[tuple[int, ...], torch.dtype]

TARGET_NAMES = ("labels", "label", "targets", "target")
_HASH_BATCH = 256
_FORM_BATCH = 8  # small batches that are padded differ more in length
_SEAL = object()


class LockedSplitError(RuntimeError):
    """Something tried to read the test split before finalization. This is a bug."""


class FinalizationKey:
    """Permission to read the test split. Only `autocut.task.finalization_key.issue_finalization_key` makes one."""

    def __init__(self, reason: str, seal: object) -> None:
        if seal is not _SEAL:
            raise LockedSplitError(
                "a FinalizationKey must be made by issue_finalization_key(), which only autocut.deploy may import"
            )
        self.reason = reason


class LockedSplit:
    """The test split.

    Without a key it gives only its length, its fingerprint, hashes, shapes and dtypes of its inputs, and whether all of its targets
    are the same.
    """

    def __init__(self, read: Callable[[], Examples] | LockedSplit, loader: Callable[[Examples, int], Loader]) -> None:
        self._read: Callable[[], Examples] = read._read if isinstance(read, LockedSplit) else read
        self._loader = loader

    @cached_property
    def _dataset(self) -> Examples:
        return self._read()

    def open(self, key: FinalizationKey) -> Examples:
        """Return the dataset.

        Raises:
            LockedSplitError: `key` is not a `FinalizationKey`.
        """
        if not isinstance(key, FinalizationKey):
            raise LockedSplitError(f"the test split opens only with a FinalizationKey, got {type(key).__name__}")
        return self._dataset

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all examples with their targets. It shows that they have changed, and nothing else about them."""
        digest = hashlib.sha256()
        for inputs, targets in self._loader(self._dataset, _HASH_BATCH):
            for name, tensor in {**tensors(inputs), "": targets}.items():
                digest.update(tensor_identity(name, tensor))
        return digest.hexdigest()

    def input_hashes(self, limit: int | None = None) -> NDArray[np.uint64]:
        """Hash of each example's inputs, to find examples that another split has too. It does not depend on targets."""
        return look_over(self._dataset, self._loader, limit).inputs

    def look_over(self, limit: int) -> Overview:
        """Return what `input_hashes` returns, and whether the targets vary; no target itself."""
        return replace(look_over(self._dataset, self._loader, limit), first_target=None, classes={})

    def input_forms(self, limit: int) -> list[dict[str, Form]]:
        """Shape beyond the batch and dtype of each input by name, of small batches of at most `limit` examples, evenly spread."""
        loader = self._loader(self._dataset, _FORM_BATCH)
        loader = replace(loader, indices=spread(len(loader.indices), limit))
        return [{name: (tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in tensors(inputs).items()} for inputs, _ in loader]

    def __len__(self) -> int:
        """Number of examples."""
        return length(self._dataset)

    def __getitem__(self, index: object) -> Never:
        """Refuse.

        Raises:
            LockedSplitError: always.
        """
        raise LockedSplitError("the test split is locked: nothing before finalization reads it; use validation_data")

    def __iter__(self) -> Never:
        """Refuse, as `__getitem__` does."""
        self.__getitem__(0)


@dataclass(frozen=True)
class Loader:
    """Batches ``(inputs, targets)`` of the examples `indices` of `dataset`, in that order. Any number of iterations is allowed.

    Whole batches are fetched at once if the dataset allows it: a plain `TensorDataset` is indexed, and the method
    ``fetch_batch(indices: Tensor)`` of a dataset returns ``(inputs, targets)``. A `Subset` of these works too. Any other dataset is
    read item by item.
    """

    dataset: Examples
    batch_size: int
    indices: Tensor
    collate: Collate | None = None
    shifts_tokens: bool = False

    def __len__(self) -> int:
        """Number of batches; the last one may be smaller."""
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order."""
        base, indices = unwrap(self.dataset, self.indices)
        fetch = _fetcher(base, self.collate)
        for chosen in torch.split(indices, self.batch_size):
            yield to_batch(fetch(chosen), shifts_tokens=self.shifts_tokens)


def make_indices(count: int, indices: Sequence[int] | NDArray[Any] | Tensor | None, shuffle: bool, seed: int) -> Tensor:
    """Return the order of reading: all examples or the given ones. Shuffling depends on `seed` alone."""
    order = torch.arange(count) if indices is None else torch.as_tensor(indices, dtype=torch.long)
    if shuffle:
        order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))]
    return order


def spread(count: int, limit: int) -> Tensor:
    """Up to `limit` indices, evenly spread over `count` examples. The same ones in every call."""
    return torch.arange(count) if count <= limit else torch.linspace(0, count - 1, limit).long()


def to_batch(collated: Any, *, shifts_tokens: bool = False) -> Batch:
    """Split the result of a dataset or a collate function into inputs and targets.

    It may be ``(inputs, targets)``; ``(input, input, ..., targets)``; a mapping with one of the names labels, label, targets or
    target; or, for language modeling (`shifts_tokens`), one tensor of token ids (n, t + 1), whose targets are the same tokens one
    step later.

    Raises:
        TaskError: it is none of these.
    """
    if isinstance(collated, Mapping):
        for name in TARGET_NAMES:
            if name in collated:
                inputs = {key: value for key, value in collated.items() if key != name}
                return _to_inputs(inputs), _to_tensor(collated[name], f"targets {quoted(name)}")
        raise TaskError(
            f"a batch must hold targets, got a mapping with the keys {', '.join(map(repr, collated))}",
            f"name one of them {quoted(TARGET_NAMES[0])}, or give collate=",
        )
    if isinstance(collated, (tuple, list)) and len(collated) >= 2:
        return _to_inputs(collated[0] if len(collated) == 2 else collated[:-1]), _to_tensor(collated[-1], "targets")
    if shifts_tokens:
        tokens = _to_tensor(collated[0] if isinstance(collated, (tuple, list)) else collated, "tokens")
        # Contiguous, because a user's loss may call .view() on them.
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    raise TaskError(f"a batch must be a pair (inputs, targets), got {type(collated).__name__}", "return pairs, or give collate=")


@dataclass(frozen=True)
class Overview:
    """What one reading of up to `limit` examples of a split tells.

    `inputs` are eight bytes of BLAKE2 over each example's inputs, without targets. `is_constant`: all targets are the same one,
    `first_target`. `classes` counts the examples by class, where the targets are one integer each, and is empty elsewhere.
    """

    inputs: NDArray[np.uint64]
    is_constant: bool
    first_target: Tensor | None
    classes: Mapping[int, int]


def look_over(dataset: Examples, loader: Callable[[Examples, int], Loader], limit: int | None = None) -> Overview:
    """Read at most `limit` examples, evenly spread, once."""
    batches = loader(dataset, _HASH_BATCH)
    if limit is not None:
        batches = Loader(dataset, _HASH_BATCH, spread(len(batches.indices), limit), batches.collate, batches.shifts_tokens)
    hashes: list[int] = []
    first: Tensor | None = None
    is_constant, classes = True, Counter[int]()
    for inputs, targets in batches:
        hashes += _hashes(inputs)
        first = targets[0] if first is None else first
        is_constant = is_constant and targets.shape[1:] == first.shape and bool((targets == first).all())
        if targets.dim() == 1 and not targets.is_floating_point():
            classes.update(targets.tolist())
    return Overview(np.array(hashes, dtype=np.uint64), is_constant, first, classes)


def to_dataset(data: Any) -> Examples:
    """Return the user's dataset, or the dataset that the user's function returns. A tuple of tensors becomes a `TensorDataset`.

    Numpy arrays in the tuple become tensors; those of float64 become float32, as `Loader` makes them of single numbers.

    Raises:
        TaskError: it has no length or no items, or its tensors have different lengths.
    """
    made = data() if callable(data) and not hasattr(data, "__getitem__") else data
    if isinstance(made, tuple) and made and all(isinstance(part, Tensor | np.ndarray) for part in made):
        return _tensor_dataset(made)
    is_other = isinstance(made, str | bytes) or hasattr(made, "iloc")
    if is_other or not hasattr(made, "__getitem__") or not hasattr(made, "__len__"):
        raise TaskError(
            f"a split must be a dataset with __len__ and __getitem__, or a function that returns one, got {type(made).__name__}",
            _dataset_hint(made),
        )
    return made  # type: ignore[no-any-return]  # torch's type declares less than this, and a list of items works as a dataset too


def _tensor_dataset(parts: tuple[Any, ...]) -> Examples:
    lengths = [len(part) if part.ndim else 0 for part in parts]
    if len(set(lengths)) > 1:
        raise TaskError(
            f"the tensors of a split must have one length, got {' and '.join(map(str, lengths))}",
            "(inputs, targets): one target for each input",
        )
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype.kind not in "biuf":
            raise TaskError(
                f"an array of a split must hold numbers, got {part.dtype}",
                "give class numbers: numpy.unique(names, return_inverse=True)",
            )
    return TensorDataset(*(part if isinstance(part, Tensor) else _to_float32(torch.from_numpy(part)) for part in parts))


def _dataset_hint(made: Any) -> str:
    """Return what to type in place of the usual things that are no dataset."""
    if isinstance(made, DataLoader):
        return "give its dataset, loader.dataset; batch_size= and collate= say how to join examples"
    if isinstance(made, str | bytes | PathLike):
        return "read the file into a dataset; autocut.tasks has from_dataframe and from_torchvision_folder"
    if hasattr(made, "iloc"):
        return "make the task by autocut.tasks.from_dataframe, or give a tuple of tensors"
    return "read an iterable dataset into a list or a TensorDataset"


def length(dataset: Examples) -> int:
    """Number of examples."""
    return len(dataset)  # type: ignore[arg-type]  # torch's Dataset declares no __len__; `to_dataset` has checked


def unwrap(dataset: Examples, indices: Tensor) -> tuple[Examples, Tensor]:
    """Resolve plain subsets: return the dataset below them, and the indices in it."""
    while type(dataset) is Subset:
        indices = torch.as_tensor(dataset.indices, dtype=torch.long)[indices]
        dataset = dataset.dataset
    return dataset, indices


def _fetcher(dataset: Any, collate: Collate | None) -> Callable[[Tensor], Any]:
    if collate is None and callable(getattr(dataset, "fetch_batch", None)):
        return dataset.fetch_batch  # type: ignore[no-any-return]
    # A subclass may change __getitem__, for example to augment. It must not be bypassed.
    if collate is None and isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__:
        parts = dataset.tensors
        return lambda chosen: tuple(part[chosen] for part in parts)
    join = collate or _default_collate

    def fetch(chosen: Tensor) -> Any:
        if hasattr(dataset, "__getitems__"):
            return join(dataset.__getitems__(chosen.tolist()))
        return join([dataset[index] for index in chosen.tolist()])

    return fetch


def _default_collate(items: list[Any]) -> Any:
    return _to_float32(default_collate(items))


def _to_float32(value: Any) -> Any:
    """Convert float64 tensors: Python and numpy numbers collate to float64, which a float32 model refuses."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype == torch.float64 else value
    if isinstance(value, Mapping):
        return {key: _to_float32(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_to_float32(item) for item in value)
    return value


def _to_inputs(value: Any) -> Inputs:
    if isinstance(value, Mapping):
        return {str(name): _to_tensor(item, f"input {quoted(name)}") for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_to_tensor(item, "an input") for item in value)
    return _to_tensor(value, "inputs")


def _to_tensor(value: Any, subject: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    kind = type(value).__name__
    if isinstance(value, (tuple, list)) and value:
        kind += f" of {type(value[0]).__name__}"
    raise TaskError(f"{subject} of a batch must be a tensor, got {kind}", "convert or drop it in the dataset, or give collate=")


def _hashes(inputs: Inputs) -> Iterator[int]:
    arrays = [np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in tensors(inputs).values()]
    for rows in zip(*arrays, strict=True):
        digest = hashlib.blake2b(digest_size=8)
        for row in rows:
            digest.update(row.tobytes())
        yield int.from_bytes(digest.digest(), "little")
