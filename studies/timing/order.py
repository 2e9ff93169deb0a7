"""Is a model of several threads as fast after one model as after another? Threads of the one before may spin after its last call.

Every model is called three times right after another one, and its third call is timed. The first table has the libraries' defaults,
the second what autocut sets (`autocut/measure/spinning.py`). Each runs in a process of its own, because OpenMP reads its settings
when it starts.

    python studies/timing/order.py --threads 2
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocut.measure import spinning
from autocut.stages import lowering
from autocut.stages.compile import onnxruntime

_ROUNDS = 60
_CALLS = 3


def models(threads: int) -> dict[str, Callable[[], object]]:
    """Return calls of one network under three modes, at batch size 32; one takes about half a millisecond."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 64, 128), nn.ReLU(), nn.Linear(128, 10),
    ).eval()  # fmt: skip
    inputs, calls = torch.randn(32, 1, 8, 8), {}
    for mode in ("eager", "onnxruntime", "openvino"):
        folder = Path(tempfile.mkdtemp())
        lowering.lower(network, "fp32", mode, [inputs], folder)
        calls[mode] = partial(lowering.load(folder, mode, threads), inputs)
    return calls


def after(before: Callable[[], object], call: Callable[[], object]) -> float:
    """Return the median of the third call in ms."""
    times = []
    for _ in range(_ROUNDS):
        for _ in range(_CALLS):
            before()
        for _ in range(_CALLS - 1):
            call()
        started = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - started)
    return float(np.median(times)) / 1e6


def measure(threads: int, *, with_defaults: bool) -> None:
    """Print the times of every model after every other one, as a factor of its time after itself."""
    torch.set_num_threads(threads)
    if with_defaults:
        onnxruntime._NO_SPINNING = ("session.force_spinning_stop", "0")
    calls = models(threads)
    for name, call in calls.items():
        own = after(call, call)
        rest = "  ".join(f"{after(calls[other], call) / own:.2f}x after {other}" for other in calls if other != name)
        print(f"  {name:<12} {own:6.3f} ms after itself, {rest}", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("defaults", "autocut"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        measure(arguments.threads, with_defaults=arguments.only == "defaults")
        return
    clean = {name: value for name, value in os.environ.items() if name not in spinning.ENVIRONMENT}
    for only, own in (("defaults", {}), ("autocut", spinning.ENVIRONMENT)):
        print(f"{only}, {arguments.threads} threads", flush=True)
        command = [sys.executable, __file__, "--threads", str(arguments.threads), "--only", only]
        subprocess.run(command, env={**clean, **own, "OMP_NUM_THREADS": str(arguments.threads)}, check=True)


if __name__ == "__main__":
    main()
