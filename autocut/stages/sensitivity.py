"""Which layers of a quantized model stay float: those whose quantization makes the outputs deviate the most, by measurement.

A runtime says how it quantizes (`Make`) and how it compares outputs (`Comparison`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autocut.counting import format_count
from autocut.errors import InfeasibleRecipeError

TOLERATED = 0.1
"""Deviation of the outputs, as a share of their own spread, above which layers stay float unasked."""


@dataclass(frozen=True)
class Attempt:
    """A quantized model, and how far its outputs deviate."""

    model: Any
    deviation: float


Make = Callable[[Sequence[str], Sequence[str]], Any]
"""(float layers, the only quantized layers) -> the quantized model. No layer in the second means all but the first."""


class Comparison(Protocol):
    """Compares the outputs of quantized models with those of the float model."""

    def attempt(self, model: Any) -> Attempt:
        """Measure `model`: the distance of its outputs, as a share of their spread."""

    def allows_scan(self, layers: int) -> bool:
        """Whether the model can be run once a layer within a minute or so."""


def deviation(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Distance of the outputs `found` from `wanted`, as a share of the spread of `wanted`. Both have shape (examples, ...).

    What is not finite is as far as can be.
    """
    spread = float(np.linalg.norm(wanted - wanted.mean(axis=0, keepdims=True))) or 1.0
    distance = float(np.linalg.norm(found - wanted))
    return distance / spread if np.isfinite(distance) else float("inf")


def joined(outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the outputs of several batches. Where lengths differ, as in answers for each token, every position is a row."""
    while len({output.shape[1:] for output in outputs}) > 1:
        outputs = [output.reshape(-1, *output.shape[2:]) for output in outputs]
    return np.concatenate(outputs)


def too_large(layers: int) -> InfeasibleRecipeError:
    """Return the error of a model in which no layers can be ranked."""
    return InfeasibleRecipeError(
        f"quantize.keep_float needs a scan of {format_count(layers, 'layer')}, which would take minutes in a model of this size"
    )


def by_sensitivity(layers: Sequence[str], make: Make, comparison: Comparison) -> list[str]:
    """Sort `layers`: first those whose quantization alone makes the outputs deviate the most.

    Raises:
        InfeasibleRecipeError: the model is too large for the scan.
    """
    if not comparison.allows_scan(len(layers)):
        raise too_large(len(layers))
    alone = {layer: comparison.attempt(make([], [layer])).deviation for layer in layers}
    return sorted(alone, key=lambda layer: alone[layer], reverse=True)


def keep_sensitive(found: Attempt, layers: Sequence[str], make: Make, comparison: Comparison, keep_float: int) -> Any:
    """Return the model of `found`, or one in which the most sensitive of its `layers` are float.

    These are `keep_float` layers. They are more where that leaves a deviation above the tolerated one: twice as many each time, up
    to half of all. A model that is too large for the scan keeps none unasked.

    Raises:
        InfeasibleRecipeError: `keep_float` layers are asked for, but the model is too large for the scan.
    """
    if not layers or not (keep_float or found.deviation > TOLERATED):
        return found.model
    if not keep_float and not comparison.allows_scan(len(layers)):
        return found.model
    ranked = by_sensitivity(layers, make, comparison)
    if keep_float:
        found = comparison.attempt(make(ranked[:keep_float], []))
    kept = max(1, 2 * keep_float)
    while found.deviation > TOLERATED and kept <= max(1, len(ranked) // 2):
        found = comparison.attempt(make(ranked[:kept], []))
        kept *= 2
    return found.model
