"""Which layers of an ONNX model stay float: those whose quantization makes the outputs deviate the most, by measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autocut.errors import InfeasibleRecipeError
from autocut.stages.compile.onnxruntime import Feed

TOLERATED = 0.1
"""Deviation of the outputs, as a share of their own spread, above which layers stay float unasked."""
_ROWS = 16
"""The scan runs the model once a layer: on so many examples of each batch."""
_LARGE_BYTES = 100 * 2**20
_ROWS_OF_LARGE = 1
"""A call of a model this large takes a good part of a second: BERT-base 0.3 s an example."""
_MOST_BYTES_OF_SCAN = 2 * 2**30
"""A scan writes and loads the model once a layer. Above this, all copies together, it would take minutes."""


@dataclass(frozen=True)
class Attempt:
    """A quantized model, and how far its outputs deviate."""

    model: Any
    deviation: float


Make = Callable[[Sequence[str], Sequence[str]], Any]
"""(float layers, the only quantized layers) -> the quantized model. No layer in the second means all but the first."""


def is_large(path: Path) -> bool:
    """Whether the model in `path` is so large that it is run on few examples, and nothing is tried that is not needed."""
    return path.stat().st_size > _LARGE_BYTES


class Comparison:
    """Compares outputs with those of the float model in `path`, on some of the examples in `feeds`: few for a large model."""

    def __init__(self, path: Path, feeds: Sequence[Feed]) -> None:
        self._bytes = path.stat().st_size
        rows = _ROWS_OF_LARGE if is_large(path) else _ROWS
        self._feeds = [{name: array[:rows] for name, array in feed.items()} for feed in feeds]
        self._wanted = self._outputs(path.read_bytes())
        self._spread = float(np.linalg.norm(self._wanted - self._wanted.mean(axis=0, keepdims=True))) or 1.0

    def attempt(self, model: Any) -> Attempt:
        """Measure `model`: the distance of its outputs, as a share of their spread. What is not finite is as far as can be."""
        distance = float(np.linalg.norm(self._outputs(model.SerializeToString()) - self._wanted))
        return Attempt(model, distance / self._spread if np.isfinite(distance) else float("inf"))

    def allows_scan(self, layers: int) -> bool:
        """Whether the model can be run once a layer within a minute or so."""
        return layers * self._bytes <= _MOST_BYTES_OF_SCAN

    def _outputs(self, model: bytes) -> NDArray[Any]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return _joined([np.asarray(session.run(None, feed)[0]) for feed in self._feeds])


def _joined(outputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the outputs of several batches. Where lengths differ, as in answers for each token, every position is a row."""
    while len({output.shape[1:] for output in outputs}) > 1:
        outputs = [output.reshape(-1, *output.shape[2:]) for output in outputs]
    return np.concatenate(outputs)


def too_large(layers: int) -> InfeasibleRecipeError:
    """Return the error of a model in which no layers can be ranked."""
    return InfeasibleRecipeError(
        f"quantize.keep_float needs a scan of {layers} layers, which would take minutes in a model of this size"
    )


def keep_sensitive(found: Attempt, layers: Sequence[str], make: Make, comparison: Comparison, keep_float: int) -> Any:
    """Return the model of `found`, or one in which the most sensitive of its `layers` are float.

    These are `keep_float` layers. They are more where that leaves a deviation above the tolerated one: twice as many each time, up
    to half of all. A model that is too large for the scan keeps none unasked.

    Raises:
        InfeasibleRecipeError: `keep_float` layers are asked for, but the model is too large for the scan.
    """
    if not layers or not (keep_float or found.deviation > TOLERATED):
        return found.model
    if not comparison.allows_scan(len(layers)):
        if keep_float:
            raise too_large(len(layers))
        return found.model
    alone = {layer: comparison.attempt(make([], [layer])).deviation for layer in layers}
    ranked = sorted(alone, key=lambda layer: alone[layer], reverse=True)
    if keep_float:
        found = comparison.attempt(make(ranked[:keep_float], []))
    kept = max(1, 2 * keep_float)
    while found.deviation > TOLERATED and kept <= max(1, len(ranked) // 2):
        found = comparison.attempt(make(ranked[:kept], []))
        kept *= 2
    return found.model
