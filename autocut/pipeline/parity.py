"""A lowered model answers next to the model it came from, before any number of it counts: a wrong export ends there."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from autocut.errors import InfeasibleRecipeError
from autocut.pipeline.measuring_stages import run_eagerly
from autocut.pipeline.stage_runner import StageContext
from autocut.stages.lowering import Predict
from autocut.stages.model_files import Prefix
from autocut.stages.quantize import output_tolerance
from autocut.task.batches import Inputs, batch_length

_LOOSE = 20
"""A lowering may deviate from its model by this many times what a bundle may deviate from itself: 2% of the largest answer in
float32, 40% in 16 bits, all of it in integers. Rounding stays far below, and how good a quantizer is, its accuracy tells."""
_LONG_S = 1.0
"""Where a calibration batch takes longer than this, the smallest served batch is answered instead."""


class Parity:
    """Compares loaded artifacts with their models, each artifact once in this process."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._agreed: set[str] = set()
        self._answered: dict[str, tuple[Inputs, Tensor]] = {}  # by the model's key: of the latest model alone

    def require(self, predict: Predict, artifact: str, model: Prefix, dtype: str) -> None:
        """Raise unless `predict`, which runs the artifact with this key, answers about as `model` does.

        Raises:
            InfeasibleRecipeError: it does not; the message has the largest deviation.
        """
        if artifact in self._agreed:
            return
        if model.key not in self._answered:
            self._answered = {model.key: self._answers(run_eagerly(model.model, self._context.served_on))}
        inputs, wanted = self._answered[model.key]
        require_agreement(predict(inputs), wanted, dtype)
        self._agreed.add(artifact)

    def _answers(self, source: Predict) -> tuple[Inputs, Tensor]:
        samples, batch = self._context.samples, self._context.samples.calibration[0]
        few = samples.serving_inputs(min(self._context.task.serving_batch_sizes))
        started = time.perf_counter()
        answers = source(few)
        seconds_each = (time.perf_counter() - started) / batch_length(few)
        return (few, answers) if seconds_each * batch_length(batch) > _LONG_S else (batch, source(batch))


def require_agreement(found: Tensor, wanted: Tensor, dtype: str) -> None:
    """Raise unless the answers of an artifact are those of its model, within a loose bound for `dtype`.

    Raises:
        InfeasibleRecipeError: another shape, a number that is not finite where the model's is, or a large deviation.
    """
    if found.shape != wanted.shape:
        raise InfeasibleRecipeError(
            f"the exported model must answer in the shape of its model, {tuple(wanted.shape)}, got {tuple(found.shape)}"
        )
    deviation, tolerance = largest_deviation(found, wanted), _LOOSE * output_tolerance(dtype)
    if not deviation <= tolerance:
        raise InfeasibleRecipeError(
            f"the exported model must answer as its model does, within {tolerance:.0%} of the largest answer in {dtype}, "
            f"got a deviation of {deviation:.2%}"
        )


def largest_deviation(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, relative to the largest of `wanted`; infinite where only one of two numbers is finite.

    A masked answer may be infinite on purpose: equal infinite numbers agree.
    """
    left, right = found.detach().cpu().double(), wanted.detach().cpu().double()
    finite = torch.isfinite(right)
    if not torch.equal(left[~finite], right[~finite]) or not bool(torch.isfinite(left[finite]).all()):
        return math.inf
    worst = float((left - right)[finite].abs().max()) if bool(finite.any()) else 0.0
    largest = float(right[finite].abs().max()) if bool(finite.any()) else 0.0
    return worst / largest if largest else worst
