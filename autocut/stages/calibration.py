"""What every calibration keeps to: it looks at a bounded number of activations, and lets others time between two batches.

    for batch in affordable(calibration, numbers_of(graph)):
        observe(batch)

A calibration works under the machine's lock, and who wants to time waits for it. Whoever runs the quantizer says with `asides` what
lets others time; other loops that take long go through `in_steps`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Generic, TypeVar, overload

from torch import Tensor, fx

T = TypeVar("T")

MOST_NUMBERS = 800_000_000
"""Activations that a calibration looks at. ResNet-50 has several times as many in 256 images of 160 pixels. They take minutes, and
the outputs come no nearer to the float model's (`studies/large_models`)."""

_step_aside: ContextVar[Callable[[], None] | None] = ContextVar("step_aside", default=None)


@contextlib.contextmanager
def asides(step_aside: Callable[[], None]) -> Iterator[None]:
    """Call `step_aside` between the steps of what runs here."""
    token = _step_aside.set(step_aside)
    try:
        yield
    finally:
        _step_aside.reset(token)


def in_steps(steps: Iterable[T]) -> Iterator[T]:
    """Yield `steps`; before and after each one, let others time."""
    step_aside = _step_aside.get() or _nothing
    for step in steps:
        step_aside()
        yield step
    step_aside()


class Batches(Sequence[T], Generic[T]):
    """Batches that a calibration looks at, in steps. `is_cut` is true where each has lost some of its examples."""

    def __init__(self, batches: Sequence[T], *, is_cut: bool) -> None:
        self._batches = batches
        self.is_cut = is_cut

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        """Return a batch, or some of them."""
        return self._batches[index]

    def __iter__(self) -> Iterator[T]:
        """Yield the batches; others may time between two of them."""
        return in_steps(self._batches)


def affordable(batches: Sequence[T], numbers: int) -> Batches[T]:
    """Return `batches` for a model with `numbers` activations an example; only the first examples of each where all are too many.

    A batch is an array or a tensor, or a list, tuple or dict of them; the first dimension of each is the batch.
    """
    rows = max(1, MOST_NUMBERS // (len(batches) * max(numbers, 1)))
    is_cut = any(len(array) > rows for batch in batches for array in _arrays(batch))
    return Batches([_first(batch, rows) for batch in batches] if is_cut else batches, is_cut=is_cut)


def numbers_of(graph: fx.Graph) -> int:
    """Return how many activations one example has in an exported `graph`; of free lengths, the one that it was exported with."""
    values = [(node.op, node.meta["val"]) for node in graph.nodes if isinstance(node.meta.get("val"), Tensor)]
    examples = next((_size(value.shape[0]) for op, value in values if op == "placeholder"), 1)
    return sum(math.prod(map(_size, value.shape)) for op, value in values if op == "call_function") // examples


def _nothing() -> None:
    """Nobody waits for what runs by itself."""


def _size(size: Any) -> int:
    """Return a dimension; of a free one, that of the example."""
    return size if isinstance(size, int) else int(size.node.hint or 1)


def _arrays(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.values())
    return list(batch) if isinstance(batch, (list, tuple)) else [batch]


def _first(batch: Any, rows: int) -> Any:
    if isinstance(batch, Mapping):
        return {name: array[:rows] for name, array in batch.items()}
    return type(batch)([array[:rows] for array in batch]) if isinstance(batch, (list, tuple)) else batch[:rows]
