"""Where one worker process makes its stages: under keys, through the stage cache, on a machine that it shares with others.

Whoever works holds the shared side of the quiet lock, whoever times its exclusive side. What a process waits for either of them
is charged to no stage.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autocut.errors import TrialError
from autocut.measure.quiet import QuietLock
from autocut.pipeline.stage_cache import Entry, StageCache, stage_key
from autocut.stages.libraries import library_versions
from autocut.task.task import Task

Observe = Callable[[Entry, str], None]
OnBroken = Callable[[float, str], None]
Make = Callable[[Path], Mapping[str, Any] | None]


class Workshop:
    """Makes stages of `task`.

    `observe(entry, category)` is called for every stage that was made or found, `on_broken(seconds, category)` for one that ended
    without an output; `stop()` turning true ends work soon.
    """

    def __init__(
        self,
        task: Task,
        cache: StageCache,
        quiet: QuietLock,
        *,
        seed: int,
        observe: Observe,
        on_broken: OnBroken,
        stop: Callable[[], bool],
    ) -> None:
        self.task = task
        self.cache = cache.gated(self.working)
        self.seed = seed
        self.stop = stop
        self._waited_s = 0.0
        self._quiet = quiet
        self._observe = observe
        self._on_broken = on_broken

    @property
    def waited_s(self) -> float:
        """Seconds spent waiting: for the machine, and for others who were making the same stage."""
        return self._waited_s + self.cache.waited_s

    def key(self, parent: str, stage: str, settings: Mapping[str, Any], **context: Any) -> str:
        """Key of a stage of this task, seed and these library versions."""
        return stage_key(
            parent, stage, settings, task=self.task.fingerprint, libraries=library_versions(), seed=self.seed, **context
        )

    def stage(self, key: str, stage: str, method: str, make: Make, category: str) -> Entry:
        """Return the entry of `key`, made by `make` where there is none, and tell the observer."""
        started = self._work_clock()
        try:
            entry = self.cache.get_or_make(key, stage, method, make, clock=self._work_clock)
        except TrialError:
            self._on_broken(self._work_clock() - started, category)
            raise
        self._observe(entry, category)
        return entry

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Hold the machine together with others who work; nobody times meanwhile."""
        started = time.perf_counter()
        with self._quiet.shared():
            self._waited_s += time.perf_counter() - started
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the machine alone, to time something."""
        started = time.perf_counter()
        with self._quiet.exclusive(stop=self.stop):
            self._waited_s += time.perf_counter() - started
            yield

    def _work_clock(self) -> float:
        return time.perf_counter() - self.waited_s
