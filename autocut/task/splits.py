"""How a task's data is read: loaders that hand out whole batches, and the test split under lock and key.

**The lock.** The best of many trials on the validation split looks better than it is, so the test split must not take part in
choosing. A `LockedSplit` has no way to an example except `open`, and `open` asks for a `FinalizationKey`. Only
`autocut.task.finalization_key.issue_finalization_key` makes keys, and import-linter lets only `autocut.deploy` import that module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from autocut.errors import TaskError
from autocut.task.batches import Batch, Inputs, tensor_bytes, tensors

Examples = Dataset[Any]
Collate = Callable[[list[Any]], Any]

TARGET_NAMES = ("labels", "label", "targets", "target")
_HASH_BATCH = 256
_SEAL = object()


class LockedSplitError(RuntimeError):
    """Something tried to read the test split before finalization: a bug, whoever did it."""


class FinalizationKey:
    """Permission to read the test split. Made by `autocut.task.finalization_key.issue_finalization_key` alone."""

    def __init__(self, reason: str, seal: object) -> None:
        if seal is not _SEAL:
            raise LockedSplitError(
                "a FinalizationKey must be made by issue_finalization_key(), which only autocut.deploy may import"
            )
        self.reason = reason


class LockedSplit:
    """The test split: it has a length, a fingerprint and hashes of its inputs, and nothing else until `open` gets a key."""

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
            raise LockedSplitError(f"the test split opens for a FinalizationKey alone, got {type(key).__name__}")
        return self._dataset

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all of its examples, targets too: it tells that they have changed, and nothing else about them."""
        digest = hashlib.sha256()
        for inputs, targets in self._loader(self._dataset, _HASH_BATCH):
            for name, tensor in {**tensors(inputs), "": targets}.items():
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor_bytes(tensor))
        return digest.hexdigest()

    def input_hashes(self, limit: int | None = None) -> NDArray[np.uint64]:
        """Hash of each example's inputs, to find examples that another split has too. Tells nothing about targets."""
        return input_hashes(self._dataset, self._loader, limit)

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
    """Batches ``(inputs, targets)`` of `dataset`, those of `indices` in that order; may be iterated any number of times.

    Whole batches are fetched at once where the dataset allows: a plain `TensorDataset` is indexed, and a dataset with a method
    ``fetch_batch(indices: Tensor)`` is asked for ``(inputs, targets)``. `Subset` passes through. Anything else is read item by
    item.
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
        base, indices = _unwrap(self.dataset, self.indices)
        fetch = _fetcher(base, self.collate)
        for chosen in torch.split(indices, self.batch_size):
            yield to_batch(fetch(chosen), shifts_tokens=self.shifts_tokens)


def make_indices(count: int, indices: Sequence[int] | NDArray[Any] | Tensor | None, shuffle: bool, seed: int) -> Tensor:
    """Return the order of reading: all examples or the given ones, shuffled by `seed` alone where asked."""
    order = torch.arange(count) if indices is None else torch.as_tensor(indices, dtype=torch.long)
    if shuffle:
        order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))]
    return order


def spread(count: int, limit: int) -> Tensor:
    """Up to `limit` indices, evenly spread over `count` examples; the same ones every time."""
    return torch.arange(count) if count <= limit else torch.linspace(0, count - 1, limit).long()


def to_batch(collated: Any, *, shifts_tokens: bool = False) -> Batch:
    """Tell inputs from targets in what a dataset or a collate function gave.

    ``(inputs, targets)``; ``(input, input, ..., targets)``; a mapping with one of the names labels, label, targets or target;
    or, for language modeling (`shifts_tokens`), one tensor of token ids (n, t + 1), whose targets are the same tokens one step
    later.

    Raises:
        TaskError: it is none of these.
    """
    if isinstance(collated, Mapping):
        for name in TARGET_NAMES:
            if name in collated:
                inputs = {key: value for key, value in collated.items() if key != name}
                return _to_inputs(inputs), _to_tensor(collated[name], f"targets {name!r}")
        raise TaskError(
            f"a batch must hold targets, got a mapping with the keys {', '.join(map(repr, collated))}",
            f"name one {TARGET_NAMES[0]!r}",
        )
    if isinstance(collated, (tuple, list)) and len(collated) >= 2:
        return _to_inputs(collated[0] if len(collated) == 2 else collated[:-1]), _to_tensor(collated[-1], "targets")
    if shifts_tokens:
        tokens = _to_tensor(collated[0] if isinstance(collated, (tuple, list)) else collated, "tokens")
        # Contiguous, because a loss of the user's may call .view() on them.
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    raise TaskError(f"a batch must be a pair (inputs, targets), got {type(collated).__name__}", "return pairs, or give collate=")


def input_hashes(dataset: Examples, loader: Callable[[Examples, int], Loader], limit: int | None = None) -> NDArray[np.uint64]:
    """Eight bytes of BLAKE2 over each example's inputs, targets left out; at most `limit` examples, evenly spread."""
    batches = loader(dataset, _HASH_BATCH)
    if limit is not None:
        batches = Loader(dataset, _HASH_BATCH, spread(len(batches.indices), limit), batches.collate, batches.shifts_tokens)
    hashes = [example_hash for inputs, _ in batches for example_hash in _hashes(inputs)]
    return np.array(hashes, dtype=np.uint64)


def to_dataset(data: Any) -> Examples:
    """Return the dataset that the user gave or that their function returns; a tuple of tensors becomes a `TensorDataset`.

    Raises:
        TaskError: it is not something with a length and items.
    """
    made = data() if callable(data) and not hasattr(data, "__getitem__") else data
    if isinstance(made, tuple) and made and all(isinstance(part, Tensor) for part in made):
        return TensorDataset(*made)
    if not hasattr(made, "__getitem__") or not hasattr(made, "__len__"):
        raise TaskError(
            f"a split must be a dataset with __len__ and __getitem__, or a function that returns one, got {type(made).__name__}",
            "read an iterable dataset into a list or a TensorDataset",
        )
    return made  # type: ignore[no-any-return]  # a list of items serves as a dataset, and torch's type asks for less than this


def length(dataset: Examples) -> int:
    """Number of examples."""
    return len(dataset)  # type: ignore[arg-type]  # torch's Dataset declares no __len__; `to_dataset` has checked


def _unwrap(dataset: Examples, indices: Tensor) -> tuple[Examples, Tensor]:
    """Follow plain subsets down to the dataset that they select from."""
    while type(dataset) is Subset:
        indices = torch.as_tensor(dataset.indices, dtype=torch.long)[indices]
        dataset = dataset.dataset
    return dataset, indices


def _fetcher(dataset: Any, collate: Collate | None) -> Callable[[Tensor], Any]:
    if collate is None and callable(getattr(dataset, "fetch_batch", None)):
        return dataset.fetch_batch  # type: ignore[no-any-return]
    # A subclass that changes __getitem__ (an augmentation, say) must not be bypassed.
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
    """Python and numpy numbers collate to float64, which no float32 model takes."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype == torch.float64 else value
    if isinstance(value, Mapping):
        return {key: _to_float32(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_to_float32(item) for item in value)
    return value


def _to_inputs(value: Any) -> Inputs:
    if isinstance(value, Mapping):
        return {str(name): _to_tensor(item, f"input {name!r}") for name, item in value.items()}
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
