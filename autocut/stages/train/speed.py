"""How fast a training goes: it says how long the training will take, and lets a long one compute with the cores that are free.

A training that is predicted to take less than `LONG_S` seconds borrows no core: its weights are the same to the last bit each time.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

LONG_S = 20.0
"""A training that takes longer than this, in seconds, uses free cores."""
_FIRST_BATCHES, _FIRST_S = 3, 1.0
"""The first batch is slow: nothing is predicted before this many batches and seconds."""
_LAST_BATCHES, _LAST_S = 10, 5.0
"""The speed is the median of so many batches; of fewer, but at least `_FIRST_BATCHES`, where they take so many seconds."""
_RENEW_S = 0.1
_TELL_S = 10.0
_GAIN = 0.9
"""Twice the threads must bring the seconds of a sample down to this share, or the cores are given back."""


class CoreLoan(Protocol):
    """Cores of other workers that are free at the moment."""

    def renew(self, most: int | None = None) -> int:
        """Take what is free, for at most `most` threads, or give back what another worker wants; return the threads of torch."""

    def close(self) -> None:
        """Give everything back."""


class Speed:
    """Watches the batches of one training.

    It borrows cores from `loan` once the training is known to be long: twice its own threads first, then twice as many each time
    that this was clearly faster. More threads add up sums in another order: two runs of a long training differ in the last bits.

    Args:
        loan: Where cores are borrowed; None: nowhere.
        tell: Gets the seconds that a long training will still take, as soon as they are known and then every few seconds.
    """

    def __init__(self, loan: CoreLoan | None = None, tell: Callable[[float], None] = lambda _: None) -> None:
        self.borrowed_s = 0.0  # seconds times the threads that were borrowed
        self.saved_s = 0.0  # seconds that the training would have taken longer without them
        self.is_long: bool | None = None  # None: not known yet
        self._loan = loan
        self._tell = tell
        self._own = self._threads = self._most = torch.get_num_threads()
        self._own_pace = 0.0  # seconds a sample without borrowed cores
        self._slower: float | None = None  # seconds a sample with half as many threads; None: more threads are not tried
        self._recent: deque[tuple[float, float]] = deque(maxlen=_LAST_BATCHES)
        self._batches, self._seconds = 0, 0.0
        self._samples_left = 0.0
        self._renewed = self._told = -math.inf

    @contextlib.contextmanager
    def watching(self, samples: float) -> Iterator[None]:
        """Watch a training of so many samples, each counted by its size; at its end, every core is given back."""
        self._samples_left = samples
        try:
            yield
        finally:
            self._give_back()

    def before_batch(self) -> None:
        """Borrow cores or give them back, at most a few times a second."""
        if self._loan is not None and self._most > self._own and time.monotonic() - self._renewed > _RENEW_S:
            self._renewed = time.monotonic()
            self._use(self._loan.renew(self._most))

    def after_batch(self, samples: float, seconds: float) -> None:
        """Take in one batch of so many samples, each counted by its size."""
        self._samples_left -= samples
        self._batches, self._seconds = self._batches + 1, self._seconds + seconds
        if self._threads > self._own:
            self.borrowed_s += (self._threads - self._own) * seconds
            self.saved_s += self._own_pace * samples - seconds
        self._recent.append((seconds, samples))
        if self._batches < _FIRST_BATCHES or self._seconds < _FIRST_S:
            return
        pace = statistics.median(each / count for each, count in self._recent)
        if self.is_long is None:
            self.is_long = pace * self._samples_left > LONG_S
            if self.is_long and self._loan is not None:
                self._own_pace = pace
                self._try_twice_the_threads(pace)
        elif self._slower is not None and self._threads == self._most and self._is_sure():
            self._judge(pace, self._slower)
        if self.is_long and time.monotonic() - self._told >= _TELL_S:
            self._told = time.monotonic()
            self._tell(pace * self._samples_left)

    def _is_sure(self) -> bool:
        many = len(self._recent) == _LAST_BATCHES
        return many or (len(self._recent) >= _FIRST_BATCHES and sum(seconds for seconds, _ in self._recent) >= _LAST_S)

    def _judge(self, pace: float, before: float) -> None:
        """Keep the threads that the last step brought, and try more, if they are worth it."""
        if pace < _GAIN * before:
            self._try_twice_the_threads(pace)
        else:
            self._slower, self._most = None, max(self._own, self._most // 2)
            if self._most == self._own:
                self._give_back()

    def _try_twice_the_threads(self, pace: float) -> None:
        self._slower, self._most = pace, 2 * self._most

    def _use(self, threads: int) -> None:
        if threads != self._threads:
            self._threads = threads
            self._recent.clear()

    def _give_back(self) -> None:
        if self._loan is not None:
            self._loan.close()
        self._use(self._own)
