"""Verification examples: real inputs, their targets, and this model's outputs. Stored as plain arrays.

They are kept batch by batch. A dynamically quantized model scales its activations over the whole batch, so an example may have
another output in another batch. And batches of sequences may differ in length.

Outputs of one example may be large: a language model gives one number per position and word. Such outputs are kept in part: every
`step`-th value of `output.reshape(n, -1)`. Accuracy is always that of the whole outputs.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.errors import BundleError, quoted
from autocut.task.batches import Batch, Inputs, batch_length, from_numpy, take, to_numpy
from autocut.task.kinds import join_targets, kinds

StoredArray = NDArray[Any]
MAX_EXAMPLES = 256
MAX_BYTES = 16 * 2**20
_NO_EXAMPLES = (
    ArithmeticError, EOFError, LookupError, MemoryError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile, zlib, numpy and torch raise for damaged files, unknown compressions, passwords, and arrays of other types."""
_SHARE = 64
"""Outputs of one example take at most this share of the bytes, so that large ones leave room for about as many examples."""


@dataclass(frozen=True)
class ExampleBatch:
    """One call: `outputs` are the model's outputs for `inputs`; floats are stored as float32.

    With a `step` above 1, `outputs` has shape (n, k) and holds a part of outputs of `whole_shape`. `scores` are the scores of the
    whole outputs, where they are known. They are not stored.
    """

    inputs: Inputs
    targets: StoredArray
    outputs: StoredArray
    step: int = 1
    whole_shape: tuple[int, ...] = ()
    scores: StoredArray | None = None

    def __len__(self) -> int:
        """Number of examples."""
        return batch_length(self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole outputs."""
        return self.whole_shape or self.outputs.shape

    def kept_part(self, output: StoredArray) -> StoredArray:
        """Return the part of `output` that `outputs` holds; all of an output of another shape, which agrees with nothing."""
        return every_nth(output, self.step) if output.shape == self.shape else output


@dataclass
class ExampleCollector:
    """Keeps what one pass over a split gives. The caller runs `predict` on the batches of `watch`.

    `own` are the first examples, for the bundle: one at least, however large it is. Where the limits cut a batch, the model answers
    that part of the batch alone.
    `replay` are the first whole batches, up to `replay_bytes`, for the verifier.

    Args:
        model: What predicts.
        kind: Registered kind whose scores the batches keep; None keeps no scores.
        max_examples: Most examples in `own`.
        max_bytes: Most bytes in `own`.
        replay_bytes: Most bytes in `replay`.
        full: `own` takes no more.
    """

    model: Callable[[Inputs], Tensor]
    kind: str | None = None
    max_examples: int = MAX_EXAMPLES
    max_bytes: int = MAX_BYTES
    replay_bytes: int = 0
    full: bool = False
    replay: list[ExampleBatch] = field(default_factory=list)
    own: list[ExampleBatch] = field(default_factory=list)
    _step: int = 0
    _targets: Tensor | None = None

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield `batches`, and remember the targets of the latest."""
        for inputs, targets in batches:
            self._targets = targets
            yield inputs, targets

    def predict(self, inputs: Inputs) -> Tensor:
        """Return the model's outputs for the latest batch of `watch`."""
        if self._targets is None:
            raise RuntimeError("predict was called before watch gave a batch")
        output = self.model(inputs)
        self._keep(inputs, self._targets, output)
        return output

    def _keep(self, inputs: Inputs, targets: Tensor, output: Tensor) -> None:
        if self.full and self.replay_bytes <= 0:
            return
        batch = self._batch(inputs, targets, output)
        self.replay_bytes -= _size(batch)
        if self.replay_bytes >= 0:
            self.replay.append(batch)
        if not self.full:
            self._keep_own(batch, targets)

    def _keep_own(self, batch: ExampleBatch, targets: Tensor) -> None:
        left = self.max_examples - sum(map(len, self.own))
        room = self.max_bytes - sum(map(_size, self.own))
        length = min(len(batch), left, room * len(batch) // max(_size(batch), 1))
        if not self.own:
            length = max(length, 1)
        self.full = length < len(batch) or length == left
        if length == 0:
            return
        if length < len(batch):
            inputs = take(batch.inputs, length)
            batch = self._batch(inputs, targets[:length], self.model(inputs))
        self.own.append(batch)

    def _batch(self, inputs: Inputs, targets: Tensor, output: Tensor) -> ExampleBatch:
        whole, wanted = output_array(output), targets.detach().cpu().numpy()
        self._step = self._step or _smallest_step(whole, self.max_bytes // _SHARE)
        scores = scores_of(self.kind, whole, wanted)
        if self._step == 1:
            return ExampleBatch(inputs, wanted, whole, scores=scores)
        return ExampleBatch(inputs, wanted, every_nth(whole, self._step), self._step, whole.shape, scores)


def collect_examples(
    predict: Callable[[Inputs], Tensor],
    batches: Iterable[Batch],
    *,
    kind: str | None = None,
    max_examples: int = MAX_EXAMPLES,
    max_bytes: int = MAX_BYTES,
) -> tuple[ExampleBatch, ...]:
    """Collect the examples of a bundle, where no pass over `batches` is made for another purpose."""
    collector = ExampleCollector(predict, kind, max_examples, max_bytes)
    for inputs, _ in collector.watch(batches):
        collector.predict(inputs)
        if collector.full:
            break
    return tuple(collector.own)


def first_batches(batches: Iterable[ExampleBatch], most: int) -> tuple[ExampleBatch, ...]:
    """Return the first of `batches`, with at most `most` examples together, but at least one batch."""
    kept: list[ExampleBatch] = []
    for batch in batches:
        if kept and number_of_examples(kept) + len(batch) > most:
            break
        kept.append(batch)
    return tuple(kept)


def number_of_examples(batches: Iterable[ExampleBatch]) -> int:
    """Return how many examples `batches` hold together."""
    return sum(map(len, batches))


def every_nth(output: StoredArray, step: int) -> StoredArray:
    """Return every `step`-th value of each example of `output`, shape (n, k), as a copy; `output` itself for a step of 1."""
    return output if step == 1 else output.reshape(len(output), -1)[:, ::step].copy()


def write_examples(path: Path, examples: Iterable[ExampleBatch]) -> None:
    """Write `examples` as an uncompressed `.npz` without pickled objects."""
    arrays: dict[str, StoredArray] = {}
    for index, batch in enumerate(examples):
        arrays |= {f"{index:05d}/inputs/{name}": array for name, array in to_numpy(batch.inputs).items()}
        arrays |= {f"{index:05d}/targets": batch.targets, f"{index:05d}/outputs": batch.outputs}
        if batch.step > 1:
            arrays |= {f"{index:05d}/outputs_step": np.array(batch.step), f"{index:05d}/outputs_shape": np.array(batch.shape)}
    with path.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_examples(path: Path) -> tuple[ExampleBatch, ...]:
    """Read what `write_examples` wrote. Pickled objects are refused.

    Raises:
        BundleError: the file is missing or is something else.
    """
    try:
        with path.open("rb") as stream:
            _refuse_bomb(stream, path.stat().st_size)
            with np.load(stream, allow_pickle=False) as saved:
                return tuple(_read_batches(saved))
    except _NO_EXAMPLES as error:
        raise BundleError(
            f"{path} must hold verification examples, got something else: {error}", "export the bundle again"
        ) from None


def _refuse_bomb(stream: IO[bytes], size_bytes: int) -> None:
    """Refuse an archive that says more than it holds: `write_examples` compresses nothing."""
    with zipfile.ZipFile(stream) as archive:
        claimed = sum(record.file_size for record in archive.infolist())
    if claimed > size_bytes:
        raise ValueError(f"its arrays take {claimed} bytes in a file of {size_bytes}")
    stream.seek(0)


def scores_of(kind_name: str | None, output: StoredArray, targets: StoredArray) -> StoredArray | None:
    """Score each example by the rules of `kind_name`. None (the metric is the user's own code) gives None.

    Raises:
        BundleError: no such kind.
    """
    if kind_name is None:
        return None
    if kind_name not in kinds:
        raise BundleError(
            f"metric kind must be one of {', '.join(kinds.names())}, got {quoted(kind_name)}",
            "use the autocut that wrote the bundle",
        )
    return kinds[kind_name]().scores(torch.from_numpy(output), torch.from_numpy(targets)).double().numpy()


def metric_of(kind_name: str | None, examples: Sequence[ExampleBatch], scores: Sequence[StoredArray | None]) -> float | None:
    """Summarize `scores` of `examples` by the rules of `kind_name`. None without scores, or where the metric is not defined."""
    known = [part for part in scores if part is not None]
    if kind_name is None or len(known) < len(examples):
        return None
    metric = kinds[kind_name]().summarize(np.concatenate(known), join_targets([batch.targets for batch in examples]))
    return float(metric) if math.isfinite(metric) else None


def claimed_metric(kind_name: str | None, examples: Sequence[ExampleBatch]) -> float | None:
    """Metric of the stored outputs on `examples`: from the scores of the pass. Without those it needs the whole outputs."""

    def scores(batch: ExampleBatch) -> StoredArray | None:
        known = batch.scores is not None or batch.step > 1
        return batch.scores if known else scores_of(kind_name, batch.outputs, batch.targets)

    return metric_of(kind_name, examples, [scores(batch) for batch in examples])


def output_array(output: Tensor) -> StoredArray:
    """Return `output` as an array; numpy has no bfloat16, so floats become float32."""
    output = output.detach().cpu()
    return (output.float() if output.is_floating_point() else output).numpy()


def _smallest_step(output: StoredArray, most_bytes: int) -> int:
    """Return the smallest step that keeps one example's outputs within `most_bytes`, and visits every column of its rows.

    Without a common divisor with the length of a row, each row keeps other columns.
    """
    values = math.prod(output.shape[1:])
    step = max(1, math.ceil(values * output.itemsize / max(most_bytes, output.itemsize)))
    while step > 1 and math.gcd(step, output.shape[-1]) > 1:
        step += 1
    return step


def _size(batch: ExampleBatch) -> int:
    return sum(array.nbytes for array in to_numpy(batch.inputs).values()) + batch.targets.nbytes + batch.outputs.nbytes


def _read_batches(saved: Any) -> Iterator[ExampleBatch]:
    for index in sorted({name.partition("/")[0] for name in saved.files}):
        prefix = f"{index}/inputs/"
        arrays = {name.removeprefix(prefix): saved[name] for name in saved.files if name.startswith(prefix)}
        batch = ExampleBatch(from_numpy(arrays), saved[f"{index}/targets"], saved[f"{index}/outputs"])
        if f"{index}/outputs_step" in saved.files:
            shape = tuple(map(int, saved[f"{index}/outputs_shape"]))
            batch = replace(batch, step=int(saved[f"{index}/outputs_step"]), whole_shape=shape)
        yield batch
