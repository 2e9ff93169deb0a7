"""How far the outputs of a quantized ONNX model deviate from those of the float model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autocut.stages.calibration import in_steps
from autocut.stages.compile.onnxruntime import EXACT_SUMS, Feed
from autocut.stages.sensitivity import Attempt, deviation, joined

_ROWS = 16
"""A scan runs the model once a layer: on so many examples of each batch."""
_LARGE_BYTES = 100 * 2**20
_ROWS_OF_LARGE = 1
"""A call of a model this large takes a good part of a second: BERT-base 0.3 s an example."""
_MOST_BYTES_OF_SCAN = 2 * 2**30
"""A scan writes and loads the model once a layer. Above this, all copies together, it would take minutes."""


def is_large(path: Path) -> bool:
    """Whether the model in `path` is so large that it is run on few examples, and nothing is tried that is not needed."""
    return path.stat().st_size > _LARGE_BYTES


class OnnxComparison:
    """Compares outputs with those of the float model in `path`, on some of the examples in `feeds`: few for a large model."""

    def __init__(self, path: Path, feeds: Sequence[Feed]) -> None:
        self._bytes = path.stat().st_size
        rows = _ROWS_OF_LARGE if is_large(path) else _ROWS
        self._feeds = [{name: array[:rows] for name, array in feed.items()} for feed in feeds]
        self._wanted = self._outputs(path.read_bytes())

    def attempt(self, model: Any) -> Attempt:
        """Measure the ONNX model `model`."""
        return Attempt(model, deviation(self._outputs(model.SerializeToString()), self._wanted))

    def allows_scan(self, layers: int) -> bool:
        """Whether all copies of the model, one a layer, are small enough."""
        return layers * self._bytes <= _MOST_BYTES_OF_SCAN

    def _outputs(self, model: bytes) -> NDArray[Any]:
        session = open_session(model)
        return joined([np.asarray(session.run(None, feed)[0]) for feed in in_steps(self._feeds)])


def open_session(model: bytes) -> Any:
    """Open a session of an ONNX model with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_SUMS)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
