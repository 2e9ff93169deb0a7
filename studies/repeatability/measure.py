"""Do measured numbers repeat? One bundle is timed in many fresh processes, on an idle machine and beside a busy neighbour.

Each process times the bundle against the digits task's untouched model, as a search does. Then it times 20 calls of the bundle
against 20 calls of the same bundle, loaded a second time, and against 21 calls: 5% more work. Two models are told apart where the
interval of their ratio does not hold 1.

    python studies/repeatability/measure.py studies/digits/bundles/trial-0028
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import autocut
from autocut.measure.disturbance import measure_reference, measure_undisturbed
from autocut.measure.latency import measure_latency
from autocut.measurement import Latency
from autocut.pipeline.measuring_stages import run_eagerly
from autocut.stages.lowering import Predict
from autocut.task.loading import load_task

Found = dict[str, dict[str, dict[str, float]]]
_NEIGHBOUR = "import torch; torch.set_num_threads(1); a = torch.randn(512, 512)\nwhile True: a @ a"
_CALLS = 20


def measure(bundle: str, samples: int, references: dict[int, Latency]) -> Found:
    """Time everything once; return the ratios and intervals by name. Runs in a process of its own."""
    torch.set_num_threads(1)
    model, again = autocut.load(bundle).predict, autocut.load(bundle).predict
    task = load_task(None)
    inputs, _ = next(iter(task.loader(task.validation_data, 32)))
    untouched, twenty = run_eagerly(task.build_model().eval()), repeated(again, _CALLS)
    jobs: dict[str, tuple[Predict, Predict, int]] = {
        "batch 1": (model, untouched, 1),
        "batch 32": (model, untouched, 32),
        "same": (repeated(model, _CALLS), twenty, 32),
        "5% more": (repeated(model, _CALLS + 1), twenty, 32),
    }
    rng, found = np.random.default_rng(os.getpid()), {}
    for name in map(str, rng.permutation(list(jobs))):
        predict, baseline, size = jobs[name]
        timed = partial(measure_latency, predict, baseline, inputs[:size], samples=samples, seed=os.getpid())
        known = references.get(size) if baseline is untouched else None
        found[name] = asdict(timed() if known is None else measure_undisturbed(timed, known))
    return found


def measure_references(samples: int) -> dict[int, Latency]:
    """Time the untouched model by itself, as a search does once."""
    torch.set_num_threads(1)
    task = load_task(None)
    inputs, _ = next(iter(task.loader(task.validation_data, 32)))
    untouched = run_eagerly(task.build_model().eval())
    return {size: measure_reference(partial(measure_latency, untouched, None, inputs[:size], samples=samples)) for size in (1, 32)}


def repeated(predict: Predict, count: int) -> Predict:
    """Return `count` calls as one."""

    def call(inputs: torch.Tensor) -> torch.Tensor:
        for _ in range(count - 1):
            predict(inputs)
        return predict(inputs)

    return call


@contextlib.contextmanager
def neighbour(*, is_there: bool) -> Iterator[None]:
    """Run a program that keeps one core busy."""
    if not is_there:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield
    finally:
        process.kill()
        process.wait()


def in_fresh_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Return `function(*arguments)` of a process of its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


def report(name: str, found: list[Found]) -> None:
    """Print how often the interval holds the median of all ratios, the spread, and what told the load."""
    for size in ("batch 1", "batch 32"):
        ratios = [one[size]["speedup"] for one in found]
        values = np.array([ratio["value"] for ratio in ratios])
        middle = float(np.median(values))
        held = sum(ratio["low"] <= middle <= ratio["high"] for ratio in ratios)
        width = float(np.median([(ratio["high"] - ratio["low"]) / ratio["value"] for ratio in ratios]))
        loads = [one[size]["load"] for one in found if one[size]["load"] is not None]
        print(
            f"{name:<7} {size:<9} speed-up {middle:6.2f}x  spread {np.ptp(values) / middle:6.1%}  interval {width:6.1%} wide  "
            f"holds the median {held:2d} of {len(found)}  others use {np.median(loads):.2f} processors",
            flush=True,
        )
    for other in ("same", "5% more"):
        ratios = [one[other]["speedup"] for one in found]
        apart = sum(not ratio["low"] <= 1 <= ratio["high"] for ratio in ratios)
        middle = float(np.median([ratio["value"] for ratio in ratios]))
        print(f"{name:<7} {other:<9} ratio {middle:.3f}, told apart in {apart:2d} of {len(found)}", flush=True)


def main() -> None:
    """Print a table for the idle machine and for the busy one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--json", type=Path, help="where every number goes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    every: dict[str, list[Found]] = {}
    references = in_fresh_process(measure_references, arguments.samples)
    for name, is_there in (("idle", False), ("loaded", True)):
        with neighbour(is_there=is_there):
            each = (arguments.bundle, arguments.samples, references)
            every[name] = [in_fresh_process(measure, *each) for _ in range(arguments.repeats)]
        report(name, every[name])
    if arguments.json:
        arguments.json.write_text(json.dumps(every))


if __name__ == "__main__":
    main()
