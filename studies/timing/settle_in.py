"""How many calls does a model take to be as fast as in a loop of its own, after another model had its turn?

Every model is called some times right after two calls of the untouched one, and each call is timed. The first column is the
median of the first call, then of the second one, and so on, relative to the last ones. The untouched model stands after two calls
of each of the others.

    python studies/timing/settle_in.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from autocut.measure.allocator import keep_memory
from autocut.pipeline.measuring_stages import run_eagerly
from autocut.stages import lowering
from autocut.task.loading import load_task

FORMS = (("int8_static", "onnxruntime"), ("fp32", "onnxruntime"), ("int8_static", "openvino"), ("fp32", "openvino"))
_CALLS, _STEADY, _SHOWN = 16, 8, 6


def after(before: Callable[[], object], call: Callable[[], object], rounds: int) -> np.ndarray:
    """Return the median of each call in ms, by its place after `before`."""
    times = np.zeros((rounds, _CALLS))
    for row in times:
        before()
        before()
        for place in range(_CALLS):
            started = time.perf_counter_ns()
            call()
            row[place] = (time.perf_counter_ns() - started) / 1e6
    return np.median(times, axis=0)


def show(name: str, medians: np.ndarray) -> None:
    """Print a line: the steady time, and each of the first calls relative to it."""
    steady = float(np.median(medians[_STEADY:]))
    told = "  ".join(f"{ms / steady:.2f}" for ms in medians[:_SHOWN])
    print(f"  {name:<48} {steady:7.4f} ms  {told}", flush=True)


def main() -> None:
    """Print a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    task = load_task(None)
    inputs, _ = next(iter(task.loader(task.validation_data, 32)))
    network = task.build_model().eval()
    untouched, forms = run_eagerly(network), {}
    for dtype, mode in FORMS:
        folder = Path(mkdtemp())
        lowering.lower(network, dtype, mode, [inputs], folder)
        forms[f"{dtype} + {mode}"] = lowering.load(folder, mode, 1)
    for size in arguments.batch:
        print(f"batch {size}: steady, then the 1st to the {_SHOWN}th call relative to it")
        untouched_call = partial(untouched, inputs[:size])
        for name, form in forms.items():
            call = partial(form, inputs[:size])
            show(f"{name}, after the untouched model", after(untouched_call, call, arguments.rounds))
            show(f"the untouched model, after {name}", after(call, untouched_call, arguments.rounds))


if __name__ == "__main__":
    main()
