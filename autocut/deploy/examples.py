"""Verification examples: real inputs, their targets, and what this very model answered. Stored as plain arrays.

They are kept batch by batch. A dynamically quantized model scales its activations over the whole batch, so the same example may get
another answer in another batch; and sequence batches may differ in length.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.errors import BundleError
from autocut.task.batches import Inputs, batch_length, from_numpy, take, to_numpy
from autocut.task.kinds import kinds

Array = NDArray[Any]
MAX_EXAMPLES = 256
MAX_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ExampleBatch:
    """One call: `outputs` is what the model answered to `inputs`, as float32 where it is a float."""

    inputs: Inputs
    targets: Array
    outputs: Array

    def __len__(self) -> int:
        """Number of examples."""
        return batch_length(self.inputs)


def collect_examples(
    predict: Callable[[Inputs], Tensor],
    batches: Iterable[tuple[Inputs, Tensor]],
    *,
    max_examples: int | None = MAX_EXAMPLES,
    max_bytes: int | None = MAX_BYTES,
) -> tuple[ExampleBatch, ...]:
    """Ask `predict` for its outputs on `batches`, up to the limits; None is no limit, for the whole test split.

    Raises:
        BundleError: not even one example fits into `max_bytes`.
    """
    collected: list[ExampleBatch] = []
    left, room = max_examples, max_bytes
    for inputs, targets in batches:
        batch = _answer(predict, inputs, targets, left)
        while room is not None and _size(batch) > room and len(batch) > 1:
            batch = _answer(predict, inputs, targets, max(1, len(batch) * room // (_size(batch) + 1)))
        if room is not None and _size(batch) > room:
            break
        collected.append(batch)
        left = None if left is None else left - len(batch)
        room = None if room is None else room - _size(batch)
        if left == 0:
            break
    if not collected:
        raise BundleError(f"one verification example must fit into {max_bytes} bytes, got none that does")
    return tuple(collected)


def write_examples(path: Path, examples: Iterable[ExampleBatch]) -> None:
    """Write `examples` as an uncompressed `.npz` without pickled objects."""
    arrays: dict[str, Array] = {}
    for index, batch in enumerate(examples):
        arrays |= {f"{index:05d}/inputs/{name}": array for name, array in to_numpy(batch.inputs).items()}
        arrays |= {f"{index:05d}/targets": batch.targets, f"{index:05d}/outputs": batch.outputs}
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_examples(path: Path) -> tuple[ExampleBatch, ...]:
    """Inverse of `write_examples`; pickled objects are refused.

    Raises:
        BundleError: the file is missing or is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            return tuple(_read_batches(saved))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"{path} must hold verification examples, got something else: {error}", "export the bundle again"
        ) from None


def examples_accuracy(kind_name: str | None, examples: Iterable[ExampleBatch], outputs: Iterable[Array]) -> float | None:
    """Metric of `outputs` on `examples` by the rules of `kind_name`; None (the metric is the user's own code) gives None."""
    if kind_name is None:
        return None
    if kind_name not in kinds:
        raise BundleError(
            f"metric kind must be one of {', '.join(kinds)}, got {kind_name!r}", "use the autocut that wrote the bundle"
        )
    kind = kinds[kind_name]
    scores, targets = [], []
    for batch, output in zip(examples, outputs, strict=True):
        wanted = torch.from_numpy(batch.targets)
        scores.append(kind.scores(torch.from_numpy(output), wanted).numpy())
        targets.append(batch.targets)
    return float(kind.summarize(np.concatenate(scores), np.concatenate(targets)))


def output_array(output: Tensor) -> Array:
    """Return `output` as an array; numpy has no bfloat16, so floats become float32."""
    output = output.detach().cpu()
    return (output.float() if output.is_floating_point() else output).numpy()


def _answer(predict: Callable[[Inputs], Tensor], inputs: Inputs, targets: Tensor, limit: int | None) -> ExampleBatch:
    length = batch_length(inputs) if limit is None else min(limit, batch_length(inputs))
    inputs = take(inputs, length)
    return ExampleBatch(inputs, targets[:length].detach().cpu().numpy(), output_array(predict(inputs)))


def _size(batch: ExampleBatch) -> int:
    return sum(array.nbytes for array in to_numpy(batch.inputs).values()) + batch.targets.nbytes + batch.outputs.nbytes


def _read_batches(saved: Any) -> Iterator[ExampleBatch]:
    for index in sorted({name.partition("/")[0] for name in saved.files}):
        prefix = f"{index}/inputs/"
        arrays = {name.removeprefix(prefix): saved[name] for name in saved.files if name.startswith(prefix)}
        yield ExampleBatch(from_numpy(arrays), saved[f"{index}/targets"], saved[f"{index}/outputs"])
