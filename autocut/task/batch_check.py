"""The part of `autocut check` that looks for the batch: it must be the first dimension of inputs, targets and outputs.

Everything after the check cuts, pads and joins batches along the first dimension. Data that is stacked along another one has the
right number of dimensions, so nothing else would notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from autocut.counting import format_count
from autocut.errors import Fault
from autocut.task.batches import Batch, Inputs, changed, tensors
from autocut.task.splits import Examples, length
from autocut.task.task import Task

_SIZES = (32, 5)
"""Two batch sizes: another dimension may happen to have the length of one batch."""

_STACK = "stack the examples along dim=0 in collate=, and give recurrent and attention layers batch_first=True"


def data_batch_faults(task: Task, name: str, dataset: Examples) -> Iterator[Fault]:
    """Each tensor of split `name` whose first dimension is not the batch.

    Raises:
        Exception: the user's dataset or collate function may raise anything.
    """
    counts = [min(size, length(dataset)) for size in _SIZES]
    batches = [_named(next(iter(task.loader(dataset, count, range(count))))) for count in counts]
    for key in batches[0]:
        if fault := _fault(f"task.{name}: the first dimension of {key}", [batch[key] for batch in batches], counts):
            axis = _batch_axis([batch[key] for batch in batches], counts)
            yield Fault(fault, "collate= must give one row for each example" if axis is None else _STACK)


def output_batch_fault(answers: Sequence[tuple[Tensor, int]]) -> Fault | None:
    """Return a fault if the first dimension of an output is not the batch. `answers` pairs outputs with numbers of examples."""
    outputs, counts = [output for output, _ in answers], [count for _, count in answers]
    message = _fault("the first dimension of the model's output", outputs, counts)
    if message is None:
        return None
    axis = _batch_axis(outputs, counts)
    if axis is None and outputs[0].dim() > 0 and len(outputs[0]) == counts[0]:  # only the smaller batch has lost its dimension
        return Fault(message, "name the dimension, as in x.squeeze(-1): x.squeeze() drops the dimension of a batch of one, too")
    if axis is None:
        return Fault(message, "give one row for each example: do not join, pick or average over the examples of a batch")
    return Fault(
        message,
        f"return outputs.movedim({axis}, 0) in forward(), and call outputs.movedim(0, {axis}) in a loss= or metric= that needs it",
    )


def changed_inputs_fault(given: Inputs, inputs: Inputs, subject: str = "task.model") -> Fault | None:
    """Return a fault if the model `subject`, which was called with `given`, a copy of `inputs`, has changed it."""
    names = changed(given, inputs)
    if not names:
        return None
    return Fault(
        f"{subject} must leave its inputs as they are, got changes in place of {' and '.join(names)}",
        "write x = (x - mean) / std instead of x.sub_(mean).div_(std), x = x + y instead of x += y, or begin with x = x.clone()",
    )


def _named(batch: Batch) -> dict[str, Tensor]:
    return {**tensors(batch[0]), "targets": batch[1]}


def _fault(subject: str, values: Sequence[Tensor], counts: Sequence[int]) -> str | None:
    """Describe the first of `values` whose first dimension does not have the length of its batch."""
    for value, count in zip(values, counts, strict=True):
        if value.dim() == 0:
            return f"{subject} must be the batch, got a single number for {format_count(count, 'example')}"
        if len(value) != count:
            got, wanted = format_count(len(value), "row"), format_count(count, "example")
            return f"{subject} must be the batch, got {got} for {wanted} (shape {tuple(value.shape)})"
    return None


def _batch_axis(values: Sequence[Tensor], counts: Sequence[int]) -> int | None:
    """Find the dimension that is as long as the batch in each of `values`."""
    for axis in range(1, min(value.dim() for value in values)):
        if all(value.shape[axis] == count for value, count in zip(values, counts, strict=True)):
            return axis
    return None
