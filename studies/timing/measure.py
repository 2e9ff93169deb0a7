"""What timing takes under the old rule and the new one: seconds, rounds, and the width of the interval.

The calls are chains of matrix products of about 1 ms, 50 ms, 0.3 s and 2 s on this machine. The old rule is kept here: both models
are called twice a round, at least 16 rounds, and the bootstrap gives the interval. The new rule is `measure_latency`.

    python studies/timing/measure.py --ms 1 50 300 2000
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autocut.measure.latency import measure_latency, relative_width
from autocut.measure.turns import reference_workload, time_interleaved
from autocut.measurement import Interval

SAMPLES, MIN_SECONDS, MAX_SECONDS = 64, 0.3, 10.0
_OLD_FEWEST = 16
_OLD_WARMUP_SHARE = 0.25


@dataclass(frozen=True)
class Timed:
    """One measurement: how long it took, its rounds, and the interval that its caller needs."""

    seconds: float
    rounds: int
    interval: Interval


def products(ms: float) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return a call of about `ms` and its inputs: a chain of at least four products of square matrices."""
    size = 160 if ms < 10 else 512 if ms < 100 else 1024
    matrix = torch.randn(size, size) / math.sqrt(size)

    @torch.inference_mode()
    def call(inputs: Tensor, count: int = 4) -> Tensor:
        for _ in range(count):
            inputs = matrix @ inputs
        return inputs

    inputs, seconds = torch.randn(size, size), []
    for _ in range(7):
        began = time.perf_counter()
        call(inputs)
        seconds.append(time.perf_counter() - began)
    count = max(4, round(4 * ms / 1e3 / float(np.median(seconds))))
    return lambda batch: call(batch[0], count), inputs[None]


def old_rule(call: Callable[[Tensor], Tensor], inputs: Tensor) -> Timed:
    """Time `call` against itself as before: a number of rounds that the interval has no say in."""
    began = time.perf_counter()
    calls = {"candidate": lambda: call(inputs), "baseline": lambda: call(inputs), "reference": reference_workload()}
    rng = np.random.default_rng(0)
    call(inputs), call(inputs)  # the first answers
    warm = time_interleaved(calls, 10, rng, seconds=_OLD_WARMUP_SHARE * MAX_SECONDS, fewest=2)
    round_s = 2 * float(np.median(sum(warm.values()))) / 1e3
    left_s = MAX_SECONDS - 2 * float(np.sum(list(warm.values()))) / 1e3
    enough = max(SAMPLES, min(math.ceil(MIN_SECONDS / round_s), 1000))
    rounds = max(min(enough, int(left_s / round_s)), _OLD_FEWEST)
    times = time_interleaved(calls, rounds, rng, seconds=left_s, fewest=_OLD_FEWEST)
    return Timed(time.perf_counter() - began, len(times["candidate"]), _bootstrap(times["baseline"], times["candidate"], rng))


def new_rule(call: Callable[[Tensor], Tensor], inputs: Tensor, *, alone: bool) -> Timed:
    """Time `call` against itself, or alone as the untouched model is now."""
    began = time.perf_counter()
    found = measure_latency(call, None if alone else call, inputs)
    return Timed(time.perf_counter() - began, found.samples, found.p50_ms if alone else found.speedup)


def _bootstrap(baseline: np.ndarray, candidate: np.ndarray, rng: np.random.Generator) -> Interval:
    """Return the ratio of the medians with the interval that the old rule gave: moving blocks, at any number of rounds."""
    n = len(candidate)
    block = math.ceil(2 * n ** (1 / 3))
    starts = rng.integers(0, n, (1000, math.ceil(n / block)))
    drawn = ((starts[:, :, None] + np.arange(block)) % n).reshape(1000, -1)[:, :n]
    low, high = np.percentile(np.median(baseline[drawn], axis=1) / np.median(candidate[drawn], axis=1), [2.5, 97.5])
    return Interval(float(np.median(baseline) / np.median(candidate)), float(low), float(high))


def main() -> None:
    """Print a row for each call and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ms", type=float, nargs="+", default=[1.0, 50.0, 300.0, 2000.0])
    torch.set_num_threads(1)
    print(f"{'a call':>8}  {'rule':<22} {'rounds':>6} {'seconds':>8} {'width':>7}")
    for ms in parser.parse_args().ms:
        call, inputs = products(ms)
        rows = {
            "old, against itself": old_rule(call, inputs),
            "new, against itself": new_rule(call, inputs, alone=False),
            "new, alone": new_rule(call, inputs, alone=True),
        }
        for rule, timed in rows.items():
            print(
                f"{ms:>5g} ms  {rule:<22} {timed.rounds:>6} {timed.seconds:>8.1f} {relative_width(timed.interval):>7.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
