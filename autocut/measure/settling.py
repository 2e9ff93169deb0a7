"""Calls a GPU until its clocks have settled: one that was idle begins with low clocks, and takes a while to raise them."""

from __future__ import annotations

import time
from collections.abc import Callable

_BLOCK_S = 0.1
_ALIKE = 0.02
_MOST_S = 3.0


def settle(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> bool:
    """Repeat `call` until two neighbouring blocks of calls differ by at most 2% for each call.

    Args:
        call: Lasts until its work is done.
        clock: Seconds.

    Returns:
        Whether that happened within three seconds. Where it did not, the intervals of the timing tell how much the times vary.
    """
    began, before = clock(), 0.0
    while clock() - began < _MOST_S:
        each = _seconds_each(call, clock)
        if abs(each - before) <= _ALIKE * each:
            return True
        before = each
    return False


def _seconds_each(call: Callable[[], object], clock: Callable[[], float]) -> float:
    started, calls = clock(), 0
    while calls == 0 or clock() - started < _BLOCK_S:
        call()
        calls += 1
    return (clock() - started) / calls
