"""The part of `autocut check` that examines loss and metric: on one batch, and the metric on as many examples as it takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocut.counting import format_count
from autocut.errors import Fault, TaskError
from autocut.task.batches import call
from autocut.task.file import describe_error
from autocut.task.kinds import Kind, join_targets
from autocut.task.splits import length, spread
from autocut.task.task import Task, seeded

ENOUGH_EXAMPLES = (32, 256, 2048)
"""The metric must be defined on one of these numbers of validation examples, evenly spread. More are tried only where it is not."""

_BATCH = 128
_SAME = 1e-9
"""Relative difference of two losses, in double precision, that are the same."""


def judging_faults(task: Task, name: str, outputs: Tensor, targets: Tensor) -> Iterator[Fault]:
    """Loss and scores of one batch of split `name`. The metric is not computed: it may be undefined on one batch."""
    kind = task.metric_kind
    try:
        with warnings.catch_warnings(), seeded(task.seed):
            warnings.simplefilter("ignore")  # what they warn of is a fault below
            loss, scores = kind.loss(outputs, targets), kind.scores(outputs, targets)
            shapes = loss.shape, scores.shape
    except Exception as error:
        # `output_fault` has checked the kind's own functions, so this is the user's loss or metric.
        yield Fault(
            f"task's loss and metric must take (outputs, targets) of {name}, got {describe_error(error, task.folder)}",
            "loss=f(outputs, targets) gives a tensor of one number, metric=f(outputs, targets) one of a number per example",
        )
        return
    if len(shapes[0]) != 0 or not loss.isfinite():
        got = f"shape {tuple(loss.shape)}" if loss.dim() else str(loss.item())
        yield Fault(
            f"task's loss must be one finite number, got {got} on {name}",
            "return its mean; check the model's weights and the inputs' scale",
        )
    elif task.loss is not None and (broadcast := _broadcast(outputs, targets)) and compares_all_pairs(task.loss, outputs, targets):
        yield Fault(f"task.loss must compare each output with its own target, got {broadcast}", _SQUEEZE)
    yield from _score_faults(task, name, scores, outputs, targets)


_SQUEEZE = "end the model with .squeeze(1), or give targets of the outputs' shape"


def _score_faults(task: Task, name: str, scores: Tensor, outputs: Tensor, targets: Tensor) -> Iterator[Fault]:
    count, may_be_several = len(targets), task.metric is None or task.summarize is not None
    if not _is_per_example(scores, count, may_be_several=may_be_several):
        message = f"task.metric must give one number for each of {format_count(count, 'example')}, got shape {tuple(scores.shape)}"
        hint = "do not average over the examples in metric=: return shape (n,)"
        if scores.dim() > 1 and len(scores) == count:
            hint = "return shape (n,), or add summarize=f(scores, targets), which makes one number of all (n, k) scores of a split"
    elif not scores.isfinite().all():
        message = f"task.metric must be finite, got NaN or infinity on {name}"
        hint = "look for a division by zero in metric="
    elif not _scores_each_by_itself(task.metric_kind, scores, outputs, targets):
        message = (
            f"task.metric must score each example by itself, got other scores for the first {count // 2} of "
            f"{format_count(count, 'example')} when they come alone"
        )
        hint = "let metric= return what each example contributes, and summarize= the number of a whole split"
    else:
        return
    if (broadcast := _broadcast(outputs, targets)) and _is_mended_by_reshaping(task.metric_kind, outputs, targets):
        message, hint = f"task.metric must compare each output with its own target, got {broadcast}", _SQUEEZE
    yield Fault(message, hint)


def _is_per_example(scores: Tensor, count: int, *, may_be_several: bool) -> bool:
    return scores.dim() > 0 and len(scores) == count and (scores.dim() == 1 or may_be_several)


def _is_mended_by_reshaping(kind: Kind, outputs: Tensor, targets: Tensor) -> bool:
    """Whether outputs and targets of one shape get one score each: then the shapes are the fault, not the metric."""
    if outputs.numel() != targets.numel():
        return False
    for answers, wanted in ((outputs.reshape(targets.shape), targets), (outputs, targets.reshape(outputs.shape))):
        try:
            scores = kind.scores(answers, wanted)
        except Exception:
            # The user's metric has worked on the other shapes.
            continue
        if _is_per_example(scores, len(wanted), may_be_several=False) and _scores_each_by_itself(kind, scores, answers, wanted):
            return True
    return False


def _scores_each_by_itself(kind: Kind, scores: Tensor, outputs: Tensor, targets: Tensor) -> bool:
    """Whether the first half of the examples scores the same alone. Pairing and resampling of examples rely on it."""
    half = len(targets) // 2
    if half == 0:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = kind.scores(outputs[:half], targets[:half])
    except Exception:
        # The user's metric has worked on the whole batch.
        return False
    whole = scores[:half]
    return alone.shape == whole.shape and torch.allclose(alone.double(), whole.double(), rtol=1e-4, atol=1e-6)


def compares_all_pairs(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> bool:
    """Whether `loss` compares every output with every target, as outputs (n, 1) and targets (n,) do that broadcast to (n, n).

    Such a loss stays the same when the targets change places, though it depends on them. A loss of pairs (contrastive, ranking)
    does not: it is no mean over examples either, but each output belongs to one target. The outputs are random numbers within the
    range of the targets, in double precision: a new model may answer the same for every example, and that would tell nothing.
    """
    wanted = targets.double() if targets.is_floating_point() else targets
    low, high = float(targets.min()), float(targets.max())
    draw = torch.Generator().manual_seed(0)
    made = low + (high - low) * (0.05 + 0.9 * torch.rand(outputs.shape, generator=draw, dtype=torch.float64))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before, moved, other = (float(loss(made, kept)) for kept in (wanted, wanted.roll(1, 0), wanted[:1].expand_as(wanted)))
    except Exception:
        # A user's loss may refuse such outputs. It has worked on those of the model.
        return False
    return math.isclose(before, moved, rel_tol=_SAME) and not math.isclose(before, other, rel_tol=_SAME)


def _broadcast(outputs: Tensor, targets: Tensor) -> str:
    """Name the shapes where outputs and targets broadcast to more numbers than either has. Empty where they do not."""
    try:
        shape = np.broadcast_shapes(outputs.shape, targets.shape)
    except ValueError:
        return ""
    if math.prod(shape) <= max(outputs.numel(), targets.numel()):
        return ""
    return f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, which broadcast to {shape}"


def metric_faults(task: Task, model: nn.Module, batch_size: int, fewest: int | None = None) -> Iterator[Fault]:
    """A metric that is not a finite number on as many validation examples as there are, up to the last of `ENOUGH_EXAMPLES`.

    A slow model is tried on `fewest` examples first.
    """
    total, found, examples = length(task.validation_data), "", 0
    for count in ENOUGH_EXAMPLES if fewest is None else (fewest, *ENOUGH_EXAMPLES[1:]):
        examples = min(count, total)
        try:
            scores, targets = _score(task, model, examples, min(_BATCH, batch_size))
        except Exception as error:
            yield _failure(task, error)
            return
        found = _undefined(task, scores, targets)
        if not found or count >= total:
            break
    if found:
        subject = "task.summarize" if task.summarize is not None else "task.metric"
        yield Fault(
            f"{subject} must give a finite number, got {found} on {format_count(examples, 'example')} of validation",
            "look for a division by zero; a metric that compares classes needs examples of each in task.validation",
        )


def untrained_faults(task: Task, model: nn.Module, examples: int) -> Iterator[Fault]:
    """A model that counts as trained, because its weights do not depend on the seed, but is no better than a constant answer."""
    kind = task.metric_kind
    if task.pretrained is not None or kind.chance is None:
        return
    try:
        if not task.is_pretrained:
            return
    except TaskError:
        return  # the check that builds the model again reports it
    try:
        scores, targets = _score(task, model, examples, min(_BATCH, examples))
    except Exception as error:
        yield _failure(task, error)
        return
    metric, chance = kind.summarize(scores, targets), kind.chance(torch.from_numpy(targets))
    if metric <= chance or math.isclose(metric, chance, rel_tol=1e-6):  # some are computed in float32
        yield Fault(
            f"a model with the same weights for every seed must be trained, got {kind.name} {metric:.3f}, "
            f"a constant answer has {chance:.3f}",
            "pretrained=False to have autocut train it, pretrained=True if this is right",
        )


def _failure(task: Task, error: Exception) -> Fault:
    """A user's model may fail on an example that the first batch does not contain."""
    return Fault(
        f"task.model must run on every batch of validation, got {describe_error(error, task.folder)}",
        "look for inputs out of range, such as token ids beyond the embedding",
    )


def _undefined(task: Task, scores: NDArray[np.float64], targets: NDArray[np.generic]) -> str:
    """Return what is wrong with the metric of these examples, empty where it is a finite number."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            metric = float(task.metric_kind.summarize(scores, targets))
    except Exception as error:
        # A user's summary may raise anything.
        return describe_error(error, task.folder)
    return "" if math.isfinite(metric) else str(metric)


def _score(task: Task, model: nn.Module, count: int, batch_size: int) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    """Scores and targets of `count` validation examples, evenly spread: data files are often sorted by class."""
    scores, targets = [], []
    indices = spread(length(task.validation_data), count)
    with torch.no_grad(), seeded(task.seed):
        for inputs, wanted in task.loader(task.validation_data, batch_size, indices):
            scores.append(task.metric_kind.scores(call(model, inputs), wanted).double().numpy())
            targets.append(wanted.numpy())
    return np.concatenate(scores), join_targets(targets)
