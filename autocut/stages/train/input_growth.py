"""Inputs that grow: a training begins with smaller ones, which cost less, and ends with the real ones.

Sides of images, or lengths of sequences, have half of their size first, then 5/8, 3/4 and 7/8, each for a sixth of the training's
samples. The last third sees inputs at full size: a network that was never trained at the size at which it serves answers worse
there, because its activations have other statistics.

An example counts as one sample at any size: the seconds tell what is saved. The teacher answers for the whole input, because its
outputs are stored, and because what it says of the whole is what the student shall learn, as a label is.

References:
    Touvron et al. 2019 (training and serving at different sizes), https://arxiv.org/abs/1906.06423
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.recipe import FEATURES, INPUT_GROWTH, LEFT_OUT, Value
from autocut.registry import Method
from autocut.stages.train.registries import GrowInputs, GrowthOptions, input_growths
from autocut.stages.train.teacher import Gate, run_teacher, sample_examples
from autocut.task.batches import Batch, Inputs, take, tensors
from autocut.task.file import describe_error
from autocut.task.task import Task

FULL_SIZE_AT = 2 / 3
SHARES = (0.5, 0.625, 0.75, 0.875)
"""Of the full size, one after the other, each for as many samples."""
_SAMPLED = 64


@input_growths.register("none")
def grow_not(inputs: Inputs, share: float) -> Inputs:  # noqa: ARG001 - the signature of every growth
    """Show inputs at full size all the time."""
    return inputs


@dataclass(frozen=True)
class InputGrowth:
    """The growth of the inputs of one training.

    `costs` are the elements of an input at each of `SHARES`, as a share of those at full size. `cuts_outputs`: the model answers
    for each position, so a shorter input has fewer outputs.
    """

    grow: GrowInputs = grow_not
    costs: tuple[float, ...] = (1.0,) * len(SHARES)
    cuts_outputs: bool = False

    def shown(self, inputs: Inputs, progress: float) -> Inputs:
        """Return `inputs` at the size that they have at `progress`, which counts samples of those planned. Not in place."""
        step = _step(progress)
        return inputs if step is None else self.grow(inputs, SHARES[step])

    def answered(self, rows: Tensor, outputs: Tensor) -> Tensor:
        """Return what of `rows`, targets or a teacher's outputs for whole inputs, is of the positions that `outputs` answer."""
        return rows[:, : outputs.shape[1]] if self.cuts_outputs else rows

    def cost(self, progress: float) -> float:
        """Elements of an input at `progress`, as a share of those at full size."""
        step = _step(progress)
        return 1.0 if step is None else self.costs[step]

    def cost_left(self, seen: int, planned: int) -> float:
        """What the samples after the first `seen` of all `planned` cost, in samples at full size."""
        ends = [FULL_SIZE_AT * (step + 1) / len(SHARES) * planned for step in range(len(SHARES))]
        pieces = zip([0.0, *ends], [*ends, float(planned)], [*self.costs, 1.0], strict=True)
        return sum(cost * max(0.0, end - max(seen, begin)) for begin, end, cost in pieces)


def input_growth(
    settings: Mapping[str, Value], models: Sequence[nn.Module], task: Task, sizes: Sequence[int], gate: Gate
) -> InputGrowth:
    """Return how inputs grow in a training with `settings`; its models have answered a few of each size.

    Args:
        settings: Of the training.
        models: What will be trained, then those that run beside it on the same inputs.
        task: Its data.
        sizes: Samples of each epoch.
        gate: Makes a context that is entered around the work.

    Raises:
        InfeasibleRecipeError: the inputs cannot be smaller, a model does not take smaller ones, its outputs would have other
            targets, or no batch of the training would be smaller.
    """
    name = str(settings.get(INPUT_GROWTH, LEFT_OUT[INPUT_GROWTH]))
    if name == LEFT_OUT[INPUT_GROWTH]:
        return InputGrowth()
    if not sizes or _step(min(task.batch_size, sizes[0]) / sum(sizes)) is None:
        raise InfeasibleRecipeError(f"{INPUT_GROWTH} {name!r} must have a batch before the last third of the training, got none")
    with gate():
        return _tried(input_growths.method(name), models, task, sample_examples(task, min(_SAMPLED, task.batch_size)))


def _step(progress: float) -> int | None:
    """Return which of `SHARES` inputs have at `progress`; None at full size."""
    step = int(progress / FULL_SIZE_AT * len(SHARES))
    return step if step < len(SHARES) else None


def _tried(method: Method[GrowInputs, GrowthOptions], models: Sequence[nn.Module], task: Task, batch: Batch) -> InputGrowth:
    asked, (inputs, targets) = f"{INPUT_GROWTH} {method.name!r}", batch
    full = run_teacher(models[0], take(inputs, 2))
    costs, shapes = list[float](), list[tuple[int, ...]]()
    for share in SHARES:
        smaller = method.function(inputs, share)
        costs.append(_elements(smaller) / _elements(inputs))
        shapes.append(_answer_shape(models[0], smaller, task, f"{asked} needs a model"))
        for beside in models[1:]:  # the method may work without them, so the reason does not begin with it
            _answer_shape(beside, smaller, task, f"{FEATURES} with {INPUT_GROWTH} {method.name!r} needs a teacher")
    if costs[0] == 1.0:
        raise InfeasibleRecipeError(f"{asked} needs inputs that can be smaller, got {_sizes(inputs)}")
    if all(shape == full.shape for shape in shapes):
        return InputGrowth(method.function, tuple(costs))
    are_prefixes = all(len(shape) > 1 and shape[2:] == full.shape[2:] and shape[1] <= full.shape[1] for shape in shapes)
    if not method.options.is_prefix or not are_prefixes or targets.dim() < 2 or targets.shape[1] != full.shape[1]:
        raise InfeasibleRecipeError(
            f"{asked} needs outputs that have the same targets at every size of the inputs, "
            f"got outputs {shapes[0]} beside {tuple(full.shape)} at full size, with targets {tuple(targets.shape)}"
        )
    if (counted := task.metric_kind.counted) is not None:
        counts, kept = counted(targets).flatten(2).any(2) if targets.dim() > 2 else counted(targets), shapes[0][1]
        if (counts.any(1) & ~counts[:, :kept].any(1)).any():
            raise InfeasibleRecipeError(
                f"{asked} needs targets that count among the first {kept} positions of each example, got none"
            )
    return InputGrowth(method.function, tuple(costs), cuts_outputs=True)


def _answer_shape(model: nn.Module, inputs: Inputs, task: Task, needs: str) -> tuple[int, ...]:
    try:
        return tuple(run_teacher(model, take(inputs, 2)).shape)
    except Exception as error:
        # A model may raise anything where a layer has a fixed width.
        got = describe_error(error, task.folder)
        raise InfeasibleRecipeError(f"{needs} that takes inputs {_sizes(inputs)}, got {got}") from error


def _elements(inputs: Inputs) -> int:
    return sum(tensor.numel() for tensor in tensors(inputs).values())


def _sizes(inputs: Inputs) -> str:
    """Shapes without the batch."""
    return ", ".join(f"(n, {', '.join(map(str, tensor.shape[1:]))})" for tensor in tensors(inputs).values())
