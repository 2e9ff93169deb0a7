"""Latency on a busy machine: candidate, untouched baseline and a reference workload take turns in one loop.

Whatever slows the machine down for a while slows all of them down, so the ratio of the medians stays. Taking turns has a price:
the others push a model out of the processor's caches, which does not happen to a served model. So each turn calls a model twice,
and only the second call counts. The order changes from round to round.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import (
    bdtr,
)  # not scipy.stats: its import takes 0.4 s more, and verification, which holds the machine, imports this
from torch import Tensor
from torch.nn import functional

from autocut.measurement import Interval, Latency
from autocut.stages.lowering import Predict
from autocut.task.batches import Inputs, batch_length

Times = NDArray[np.float64]

FEWEST_SAMPLES = 16
MOST_SAMPLES = 1000
_RESAMPLED_ROUNDS = 400_000
_ATTEMPTS = 3
_UNDISTURBED = 1.2
"""Differences up to this factor are usual on a shared machine. A busy neighbour causes larger ones."""
_WARMUP_SHARE = 0.25
"""The warm-up of slow calls ends after this share of `max_seconds`, but not before the second round."""


def measure_latency(
    candidate: Predict,
    baseline: Predict,
    inputs: Inputs,
    *,
    samples: int = 64,
    warmup: int = 10,
    min_seconds: float = 0.3,
    max_seconds: float = 10.0,
    seed: int = 0,
) -> Latency:
    """Time `candidate` against `baseline` on `inputs`, whose length is the batch size.

    Fast calls get more rounds than `samples`, until `min_seconds` are filled, but at most 1,000. Slow calls get fewer rounds, so
    that the measurement ends near `max_seconds`, but at least 16. Preparing inputs, loading and compiling are not timed.

    Args:
        candidate: A loaded model that answers with a tensor. On a GPU, a call lasts until its work is done.
        baseline: The untouched model.
        inputs: Real inputs, already in memory.
        samples: Number of rounds. A round calls each model twice and times the second call.
        warmup: Rounds before the first one that counts.
        min_seconds: Shortest measurement of fast calls.
        max_seconds: Longest measurement of slow calls, warm-up included.
        seed: Seed of the order in each round and of the bootstrap.
    """
    calls = {
        "candidate": _finishing(candidate, inputs),
        "baseline": _finishing(baseline, inputs),
        "reference": reference_workload(),
    }
    rng = np.random.default_rng(seed)
    warm = time_interleaved(calls, warmup, rng, seconds=_WARMUP_SHARE * max_seconds, fewest=2)
    round_s = 2 * float(np.median(sum(warm.values()))) / 1e3
    spent_s = 2 * float(np.sum(list(warm.values()))) / 1e3
    rounds = _rounds(samples, round_s, min_seconds, max_seconds - spent_s)
    times = time_interleaved(calls, rounds, rng, seconds=max_seconds - spent_s, fewest=FEWEST_SAMPLES)
    p50, speedup = _intervals(times["candidate"], times["baseline"], rng)
    return Latency(
        batch_size=batch_length(inputs),
        samples=len(times["candidate"]),
        p50_ms=p50,
        p90_ms=tail_latency(times["candidate"], 0.90),
        p99_ms=tail_latency(times["candidate"], 0.99),
        baseline_p50_ms=float(np.median(times["baseline"])),
        speedup=speedup,
        yardstick_ms=float(np.median(times["reference"])),
    )


def measure_undisturbed(measure: Callable[[], Latency], reference: Latency, stop: Callable[[], bool] = lambda: False) -> Latency:
    """Measure until the untouched model is about as fast as in `reference`, at most three times; return the closest measurement.

    Nothing is repeated once `stop()` is true.

    Taking turns cancels what slows all calls alike. A neighbour on the same processor does not slow all calls alike: the scheduler
    interrupts long calls more often than short ones. The untouched model then slows down more than a fast candidate, whose speed-up
    looks too large (seen: 21x for 4.5x).
    """
    found = [measure()]
    while len(found) < _ATTEMPTS and disturbance(found[-1], reference) > _UNDISTURBED and not stop():
        found.append(measure())
    return min(found, key=lambda latency: disturbance(latency, reference))


def disturbance(found: Latency, reference: Latency) -> float:
    """Return the factor, 1 or more, between the untouched model's times in the two, in units of the reference workload."""
    now, then = found.baseline_p50_ms / found.yardstick_ms, reference.baseline_p50_ms / reference.yardstick_ms
    return max(now / then, then / now)


def time_interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, rng: np.random.Generator, *, seconds: float = math.inf, fewest: int = 0
) -> dict[str, Times]:
    """Call each of `calls` twice a round, in an order that `rng` draws for each round, and return the times of the second calls.

    Python's garbage collector is off meanwhile: its pauses would be added to some random call. After `seconds` no new round begins,
    once there are `fewest`.

    Returns:
        Up to `rounds` times in ms for each name. Times with the same position come from the same round.
    """
    functions = list(calls.values())
    elapsed_ns = np.zeros((rounds, len(functions)), dtype=np.int64)
    done = 0
    clock = time.perf_counter_ns
    with _collector_off():
        began = clock()
        for row in elapsed_ns:
            if done >= fewest and clock() - began > seconds * 1e9:
                break
            for position in rng.permutation(len(functions)):
                call = functions[position]
                call()
                started = clock()
                call()
                row[position] = clock() - started
            done += 1
    return {name: elapsed_ns[:done, position] / 1e6 for position, name in enumerate(calls)}


def tail_latency(times: Times, percentile: float, confidence: float = 0.99) -> float | None:
    """Return an upper bound of the `percentile` of latency that holds at 99% confidence; None where `times` are too few for it.

    This is the early-stopping rule of MLPerf Inference: drop the ``t - 1`` slowest calls and report the slowest of the rest, where
    ``t`` is the number of slow calls that this many samples allow. The 90th percentile needs 64 calls, the 99th needs 662.

    References:
        https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc
    """
    # The largest number of slow calls for which "this many or fewer" has at most the probability 1 - confidence.
    cumulated = bdtr(np.arange(len(times) + 1), len(times), 1 - percentile)
    allowed = int(np.searchsorted(cumulated, 1 - confidence, side="right")) - 1
    return None if allowed < 1 else float(np.sort(times)[-allowed])


@cache
def reference_workload() -> Callable[[], object]:
    """Return a fixed workload of a fraction of a millisecond: a convolution and a matrix product, eager and float32.

    Its time depends on the machine and on other work there, never on the task. So times of different hours are compared in units
    of it. Records store its median as `yardstick_ms`.
    """
    generator = torch.Generator().manual_seed(0)
    image, kernel = torch.randn(1, 32, 32, 32, generator=generator), torch.randn(32, 32, 3, 3, generator=generator)
    matrix = torch.randn(128, 128, generator=generator)

    @torch.inference_mode()
    def run() -> Tensor:
        return functional.conv2d(image, kernel, padding=1).sum() + (matrix @ matrix).sum()

    return run


@contextmanager
def _collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _rounds(samples: int, round_s: float, min_seconds: float, left_s: float) -> int:
    enough = max(samples, min(math.ceil(min_seconds / round_s), MOST_SAMPLES))
    return max(min(enough, int(left_s / round_s)), FEWEST_SAMPLES)


def _finishing(predict: Predict, inputs: Inputs) -> Callable[[], object]:
    """Bind the inputs. A GPU only queues the work, so wait for an answer that lies on one."""

    def call() -> Tensor:
        return predict(inputs)

    output: Any = call()
    if not isinstance(output, Tensor) or not output.is_cuda:
        return call
    device = output.device

    def call_and_wait() -> Tensor:
        answer = predict(inputs)
        torch.cuda.synchronize(device)
        return answer

    return call_and_wait


def _intervals(candidate: Times, baseline: Times, rng: np.random.Generator) -> tuple[Interval, Interval]:
    """Bootstrap intervals of the candidate's median and of the ratio of the medians baseline / candidate.

    A resample draws blocks of neighbouring rounds. A disturbance lasts for several calls, so drawing single rounds would give
    intervals that are too narrow (moving blocks, length by the cube root rule; Kuensch 1989).
    """
    n = len(candidate)
    block = max(1, math.ceil(2 * n ** (1 / 3)))
    resamples = min(max(_RESAMPLED_ROUNDS // n, 400), 1000)
    starts = rng.integers(0, n, (resamples, math.ceil(n / block)))
    drawn = ((starts[:, :, None] + np.arange(block)) % n).reshape(resamples, -1)[:, :n]
    medians = np.median(candidate[drawn], axis=1)
    ratios = np.median(baseline[drawn], axis=1) / medians
    p50 = float(np.median(candidate))
    return _interval(p50, medians), _interval(float(np.median(baseline)) / p50, ratios)


def _interval(value: float, resampled: Times) -> Interval:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(value, min(float(low), value), max(float(high), value))
