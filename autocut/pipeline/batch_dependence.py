"""Whether a model's answer to an example depends on the batch around it, and accuracy at the sizes of serving where it does.

ONNX Runtime's dynamic int8 has one activation scale for a whole batch. Such a model is scored in batches as they are served, not in
those of the task.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from autocut.measure.accuracy import Scores, metric_or_nan
from autocut.pipeline.parity import largest_deviation
from autocut.stages.lowering import Predict
from autocut.stages.quantize import DtypeOptions, output_tolerance
from autocut.task.batches import Inputs, batch_length, pad, take, transform
from autocut.task.kinds import Kind

_INTEGER_TOLERANCE = 1e-3
"""Largest deviation of integers, relative to the largest answer, that does not count. A scale of the whole batch shifts more: by
0.4% for a network of three layers; other int8 lowerings gave the very same answers (ONNX Runtime 1.32, OpenVINO 2026.4)."""
_APART = 8
_FEW = 4
"""Of a slow model only so many examples are asked together, and half of them apart."""


def depends_on_batch(predict: Predict, batch: Inputs, sizes: tuple[int, ...], dtype: str, *, is_slow: bool = False) -> bool:
    """Whether the first examples of `batch` get other answers in batches of the served `sizes` than together.

    At the smallest size each of a handful is asked. A slow model is asked six examples in all: no two of them can both have the
    number that decides the scale of the batch.
    """
    if is_slow:
        batch = take(batch, _FEW)
    together, length, tolerance = predict(batch), batch_length(batch), batch_tolerance(dtype)
    smallest, largest = min(sizes), max(sizes)
    handful = min(length, _FEW // 2 if is_slow else _APART)
    apart = torch.cat([predict(_rows(batch, start, start + smallest)) for start in range(0, handful, smallest)])
    if largest_deviation(apart, together[: len(apart)]) > tolerance:
        return True
    if is_slow or largest == smallest:
        return False
    served = predict(take(batch, largest) if length >= largest else pad(batch, largest))[:length]
    return largest_deviation(served, together[: len(served)]) > tolerance


def batch_tolerance(dtype: str) -> float:
    """Return the largest deviation that does not count, relative to the largest answer.

    Floats may deviate as far as a bundle from itself: other batch sizes have other kernels, which sum in another order.
    """
    tolerance = output_tolerance(dtype)
    return tolerance if tolerance < DtypeOptions().output_tolerance else _INTEGER_TOLERANCE


def worst_of(sizes: tuple[int, ...], score: Callable[[int], Scores], kind: Kind) -> tuple[int, Scores]:
    """Score in batches of the smallest and the largest of `sizes`; return the size with the lower metric, and its scores."""
    scored = {size: score(size) for size in dict.fromkeys((min(sizes), max(sizes)))}
    worst = min(scored, key=lambda size: metric_or_nan(kind, scored[size].scores, scored[size].targets))
    return worst, scored[worst]


def _rows(batch: Inputs, start: int, stop: int) -> Inputs:
    return transform(batch, lambda tensor: tensor[start:stop])
