"""What else the machine does while a model is timed: it is noticed, waited for, and kept beside the number.

Taking turns cancels what slows all calls alike. A neighbour on the same processor does not slow all calls alike: the scheduler
interrupts long calls more often than short ones. The untouched model then slows down more than a fast candidate, whose speed-up
looks too large (seen: 21x for 4.5x).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from autocut.measure.latency import TIME_BETWEEN_RUNS, relative_width, widened
from autocut.measure.load import LoadMeter
from autocut.measurement import LOADED, UNDISTURBED, Interval, Latency

_ATTEMPTS = 3
_DISTURBED_WIDTH = 0.1
"""A median whose 95% interval is wider than this, relative to it, was disturbed."""
_LONG_S = 3.0
"""A measurement of the untouched model that took this long is repeated only if it was disturbed by more than is usual
(`UNDISTURBED`)."""
_ONCE_S = 10.0
"""A timing that took this long is not repeated at once. It is when its model is finalized (`Pipeline.cost`): three timings of
BERT-base beside a busy neighbour took a quarter of a search of six minutes."""
_CALM = 0.3
"""Processors that other programs may use on a calm machine."""
_LOOK_S = 0.2
_LONGEST_WAIT_S = 2.0


def measure_reference(measure: Callable[[], Latency], stop: Callable[[], bool] = lambda: False) -> Latency:
    """Measure the untouched model alone until nothing disturbs it, at most three times; return the fastest measurement.

    A measurement was disturbed if the interval of its median is wide (`_DISTURBED_WIDTH`, for a long one `UNDISTURBED`). The
    reference workload tells less: its calls are short, and a neighbour interrupts long calls first. A disturbance makes a model
    slower, so the fastest measurement was disturbed least. Nothing is repeated once `stop()` is true.
    """
    found: list[Latency] = []
    is_disturbed = True
    while len(found) < _ATTEMPTS and is_disturbed and not (found and stop()):
        started = time.perf_counter()
        found.append(measure())
        is_long = time.perf_counter() - started > _LONG_S
        is_disturbed = relative_width(found[-1].p50_ms) > (UNDISTURBED - 1 if is_long else _DISTURBED_WIDTH)
    best = min(found, key=lambda latency: latency.p50_ms.value)
    return replace(best, disturbance=best.p50_ms.high / best.p50_ms.low)


def measure_undisturbed(
    measure: Callable[[], Latency],
    reference: Latency,
    stop: Callable[[], bool] = lambda: False,
    wait: Callable[[Callable[[], bool]], None] | None = None,
) -> Latency:
    """Measure until the untouched model is no slower than in `reference`, at most three times; return the least disturbed one.

    What takes long (`_ONCE_S`) is measured once.

    Before the last time it waits for a calm machine (`wait`, by default `wait_for_calm`). Nothing is repeated once `stop()` is
    true. What is disturbed after all says so, and has a cautious speed-up (`cautious`).
    """
    started = time.perf_counter()
    found = [measure()]
    attempts = 1 if time.perf_counter() - started > _ONCE_S else _ATTEMPTS
    while len(found) < attempts and _trouble(found[-1], reference) > UNDISTURBED and not stop():
        if len(found) == attempts - 1:
            (wait or wait_for_calm)(stop)
        found.append(measure())
    best = min(found, key=lambda latency: _trouble(latency, reference))
    # The untouched model runs other code than the candidate. What is unusual about its time says how far the ratio may be off.
    unusual = min(abs(math.log(factor)) for factor in _factors(best, reference))
    return cautious(replace(best, speedup=widened(best.speedup, unusual)), disturbance(best, reference))


def disturbance(found: Latency, reference: Latency) -> float:
    """Return the factor, 1 or more, by which the untouched model is slower in `found`: in ms or in units of the reference workload.

    The smaller one counts. A machine that is slower as a whole changes the first alone. The second changes alone where calls of a
    second leave nothing of the reference workload in the caches: it then takes 10% to 20% longer (GPT-2 on an AMD EPYC). A model
    that is faster than in `reference` was not disturbed here: the reference was, and all speed-ups share it.
    """
    return max(1.0, min(_factors(found, reference)))


def claimable(found: Latency, reference: Latency) -> Latency:
    """Return `found` with an interval of its median that also holds what other processes and other hours of this machine find.

    The interval of one run says how sure the median of its minute is. What differs between runs (`TIME_BETWEEN_RUNS`) comes on top,
    and how far the untouched model's own time has moved since `reference`: as far as that, this model's time may move back.
    """
    in_ms, _ = _factors(found, reference)
    usual = widened(found.p50_ms, TIME_BETWEEN_RUNS)
    return replace(found, p50_ms=replace(usual, low=usual.low / max(in_ms, 1.0), high=usual.high / min(in_ms, 1.0)))


def cautious(found: Latency, factor: float) -> Latency:
    """Return `found` with its `disturbance`; where that is large, with the smallest speed-up that it allows.

    The disturbance has slowed the untouched model by `factor`, and the candidate by that or less. So the true speed-up is between
    the measured one and the measured one divided by `factor`.
    """
    if factor <= UNDISTURBED:
        return replace(found, disturbance=factor)
    ratio = found.speedup
    return replace(found, disturbance=factor, speedup=Interval(ratio.value / factor, ratio.low / factor, ratio.high))


def _factors(found: Latency, reference: Latency) -> tuple[float, float]:
    """How many times slower the untouched model is in `found`: in ms, and in units of the reference workload."""
    in_ms = found.baseline_p50_ms / reference.baseline_p50_ms
    return in_ms, in_ms * reference.yardstick_ms / found.yardstick_ms


def _trouble(found: Latency, reference: Latency) -> float:
    """Return the factor by which a timing is worth repeating: beside a busy neighbour, a slow machine is no slow machine."""
    in_ms, _ = _factors(found, reference)
    is_loaded = found.load is not None and found.load > LOADED
    return max(1.0, in_ms) if is_loaded else disturbance(found, reference)


def wait_for_calm(stop: Callable[[], bool]) -> None:
    """Wait until other programs leave the machine alone, at most two seconds."""
    until = time.monotonic() + _LONGEST_WAIT_S
    while time.monotonic() < until and not stop():
        load = LoadMeter().read(at_least_s=_LOOK_S)
        if load is None or load < _CALM:
            return
