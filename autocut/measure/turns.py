"""Calls that take turns on one machine, and the reference workload that takes turns with every model."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from autocut.stages.device import CPU, Device

Times = NDArray[np.float64]
_UNTIMED, _UNTIMED_WITHIN = 2, 5.0


def untimed_s(call_s: float, warm_s: float) -> float:
    """Return the seconds for which a turn of `time_interleaved` calls a model that takes `call_s`, before the call that counts."""
    calls = _UNTIMED if call_s < _UNTIMED_WITHIN * warm_s else 1
    return max(calls * call_s, warm_s)


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    rng: np.random.Generator,
    *,
    once: Collection[str] = (),
    warm_s: float = 0.0,
    seconds: float = math.inf,
    fewest: int = 0,
    enough: Callable[[Mapping[str, Times]], bool] = lambda _: False,
) -> dict[str, Times]:
    """Call each of `calls` a few times a round, in an order that `rng` draws for each round; return the times of the last calls.

    Those named in `once` are called once a round. The others are called for `warm_s` seconds before the call that counts: at least
    once, and twice unless that takes five times as long. Python's garbage collector is off meanwhile: its pauses would be added to
    some random call. No new round begins when `enough(times so far)` is true, or after `seconds` if there are `fewest`.

    Returns:
        Up to `rounds` times in ms for each name. Times with the same position come from the same round.
    """
    turns = [(call, name not in once) for name, call in calls.items()]
    elapsed_ns = np.zeros((rounds, len(turns)), dtype=np.int64)
    done = 0

    def so_far() -> dict[str, Times]:
        return {name: elapsed_ns[:done, position] / 1e6 for position, name in enumerate(calls)}

    clock = time.perf_counter_ns
    with _collector_off():
        began = clock()
        for row in elapsed_ns:
            if (done >= fewest and clock() - began > seconds * 1e9) or (done and enough(so_far())):
                break
            for position in rng.permutation(len(turns)):
                call, is_twice = turns[position]
                if is_twice:
                    _settle_in(call, warm_s)
                started = clock()
                call()
                row[position] = clock() - started
            done += 1
    return so_far()


def _settle_in(call: Callable[[], object], seconds: float) -> None:
    began, calls, passed_s = time.perf_counter_ns(), 0, 0.0
    while calls == 0 or passed_s < seconds or (calls < _UNTIMED and passed_s < _UNTIMED_WITHIN * seconds):
        call()
        calls += 1
        passed_s = (time.perf_counter_ns() - began) / 1e9


@cache
def reference_workload(device: Device = CPU) -> Callable[[], object]:
    """Return a fixed workload of a fraction of a millisecond on `device`: a convolution and a matrix product, eager and float32.

    Its time depends on the machine and on other work there, never on the task. So times of different hours are compared in units
    of it. Records store its median as `yardstick_ms`.
    """
    generator = torch.Generator().manual_seed(0)
    image, kernel = torch.randn(1, 32, 32, 32, generator=generator), torch.randn(32, 32, 3, 3, generator=generator)
    matrix = torch.randn(128, 128, generator=generator)
    image, kernel, matrix = map(device.move, (image, kernel, matrix))

    @torch.inference_mode()
    def run() -> Tensor:
        total = functional.conv2d(image, kernel, padding=1).sum() + (matrix @ matrix).sum()
        device.wait()
        return total

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
