"""Is ONNX Runtime's highest level of graph optimization ever beaten by a lower one on this processor?

    python studies/timing/levels.py MODEL.onnx...

Each model, such as `model/model.onnx` of a bundle, is opened once at each level. The sessions take turns on one random input of one
example, with one thread.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from autocut.measure.processor import this_host
from autocut.measure.turns import time_interleaved

LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_ROUNDS, _FEWEST = 200, 7
_LENGTH = 128


def quick_calls(model: Path, seconds: float) -> dict[str, float]:
    """Return the lower quartile of the calls of `model` in ms at each level: other work on the machine only lengthens calls."""
    rng = np.random.default_rng(0)
    sessions = {name: _opened(model, level) for name, level in LEVELS.items()}
    feed = {one.name: _example(one, rng) for one in sessions["all"].get_inputs()}
    calls = {name: partial(session.run, None, feed) for name, session in sessions.items()}
    times = time_interleaved(calls, _ROUNDS, rng, seconds=seconds, fewest=_FEWEST)
    return {name: float(np.quantile(of_level, 0.25)) for name, of_level in times.items()}


def _opened(model: Path, level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _example(given: Any, rng: np.random.Generator) -> NDArray[Any]:
    """One example: a free length is 128, integers are ones, which every vocabulary has and no mask leaves out."""
    shape = [1, *(size if isinstance(size, int) else _LENGTH for size in given.shape[1:])]
    if "int" in given.type:
        return np.ones(shape, np.int64)
    return rng.standard_normal(shape).astype(np.float32)


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each model (default: 5)")
    options = parser.parse_args()
    print(f"{this_host().name}, ONNX Runtime {onnxruntime.__version__}; lower quartile of calls in ms")
    for model in options.models:
        found = quick_calls(model, options.seconds)
        print(f"{model}: " + ", ".join(f"{name} {ms:.3g}" for name, ms in found.items()), flush=True)


if __name__ == "__main__":
    main()
