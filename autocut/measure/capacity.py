"""What the whole machine serves: copies of a model, each in a process of its own with some threads, answer all at once.

One process with one thread leaves the other processors idle; one process with all of them waits at the end of every layer. Which
layout serves most depends on the model, its runtime and the machine, so each is run. All copies begin at the same moment and go on
beyond the end of the same seconds, so that all of these have the full load. The seconds are cut into blocks, and the spread of
their throughputs gives the interval (batch means).

A neighbour on the machine slows layouts down. So the reference workload runs before and after each one: in one process a processor,
and in one alone beside a layout that leaves most processors free (`Layout.yardstick_per_s`).

The copies are forked. The caller must have run nothing yet that starts threads: a fork has none of them, and waits for them for
ever. Linux only.

References:
    Law and Kelton, Simulation Modeling and Analysis (batch means).
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from autocut.measure.allocator import keep_memory
from autocut.measure.footprint import forget_peak, peak_resident_bytes, resident_bytes
from autocut.measure.memory import MachineMemory
from autocut.measure.parent_death import die_with
from autocut.measure.turns import reference_workload
from autocut.measurement import LOADED, Interval, Layout, fills, words_of

Load = Callable[[int], Callable[[], object]]
"""Loads a model with a number of threads, and returns what calls it on a batch."""
Shape = tuple[int, int]
"""Copies, and threads of each."""

_SHORTEST_S, _LONGEST_S = 0.4, 3.0
"""Seconds that a layout runs, at least and at most..."""
_CALLS = 12
"""... and calls of each copy in between."""
_YARDSTICK_S = 0.15
_BLOCKS, _FEWEST_BLOCKS = 10, 3
_CALLS_A_BLOCK = 2
"""A block that is shorter than a call knows nothing that the block before it does not."""
_BETWEEN_RUNS = 0.05
"""Half the 95% interval of what differs from run to run, relative to the throughput: `studies/copies` has the figures."""
_MEMORY_SHARE = 0.8
"""Of the free memory: what all copies may take."""
_LONGEST_WAIT_S = 600.0
_LEAD_S = 0.02
"""From the word to the copies until they begin."""


class CopyFailedError(RuntimeError):
    """A copy of a model did not load, died, or gave no answer in time."""


def shapes_for(processors: int, threads: int | None = None) -> tuple[Shape, ...]:
    """Return the layouts to try on a machine with so many processors, those of few copies first.

    All but one process with one thread fill the machine, as far as whole numbers allow. Copies go up in powers of two.

    Args:
        processors: Processors that serve.
        threads: The only number of threads that the model runs with; None: it runs with any.
    """
    fewest = 1 if threads is None else threads
    most = max(1, processors // fewest)
    copies = sorted({2**power for power in range(most.bit_length())} | {most})
    filling = {(count, max(1, processors // count) if threads is None else threads) for count in copies}
    return tuple(sorted({(1, fewest)} | filling))


def measure_layouts(load: Load, batch_size: int, shapes: Sequence[Shape], processors: int, most_s: float) -> tuple[
    tuple[Layout, ...], tuple[str, ...]
]:  # fmt: skip
    """Run the layouts of `shapes` one after the other, and return what each has served, and why others were left out.

    The first one tells how much memory a copy takes. Then those of many copies come first, which may serve most, because the time
    may end. One that other programs have disturbed runs once more after the last, and the less disturbed run counts.

    Args:
        load: Called in each copy. It sets no threads of torch: that is done.
        batch_size: Predictions of one call.
        shapes: From `shapes_for`. A layout that does not fit into the free memory is left out.
        processors: Processors that serve.
        most_s: A layout that runs after so many seconds is left out.

    Raises:
        CopyFailedError: the reference workload does not run.
    """
    until, longest_s = time.monotonic() + most_s, 0.0
    found, left_out = dict[Shape, Layout](), dict[Shape, str]()
    with _Yardstick(processors) as yardstick:
        runner = _LayoutRunner(load, batch_size, processors, until, yardstick)
        for shape in 2 * (*shapes[:1], *reversed(shapes[1:])):
            if shape in left_out or (shape in found and found[shape].load <= LOADED):
                continue
            began = time.monotonic()
            try:
                if began + longest_s > until:
                    raise CopyFailedError("no time was left")
                layout = runner.run(*shape)
            except CopyFailedError as error:
                if shape not in found:
                    left_out[shape] = f"{words_of(*shape)}: {error}"
                continue
            longest_s = max(longest_s, time.monotonic() - began)
            found[shape] = min(found.get(shape, layout), layout, key=lambda known: known.load)
    return tuple(found[shape] for shape in shapes if shape in found), tuple(left_out.values())


@dataclass
class _LayoutRunner:
    """Runs a model in one layout after the other; `copy_bytes` is the most memory that a copy has taken so far."""

    load: Load
    batch_size: int
    processors: int
    until: float
    yardstick: _Yardstick
    copy_bytes: int = 0

    def run(self, copies: int, threads: int) -> Layout:
        """Return what a layout serves.

        Raises:
            CopyFailedError: it cannot run, or there is no time for it.
        """
        _require_memory(copies, self.copy_bytes)
        is_full = fills(copies, threads, self.processors)
        before = self.yardstick.latest(is_full=is_full)
        with Copies(self.load, copies, threads, self.until) as running:
            calls = running.run(min(max(_SHORTEST_S, _CALLS * running.call_s), _LONGEST_S)).calls_per_s
            self.copy_bytes = max(self.copy_bytes, running.copy_bytes)
        after = self.yardstick.read(is_full=is_full)
        per_s = Interval(self.batch_size * calls.value, self.batch_size * calls.low, self.batch_size * calls.high)
        return Layout(copies, threads, per_s, (before.per_s + after.per_s) / 2, max(before.load, after.load))


@dataclass(frozen=True)
class _YardstickRead:
    """Runs a second of the reference workload, and the processors that other programs took from it."""

    per_s: float
    load: float


class _Yardstick:
    """The reference workload, in one process a processor and in one alone: a neighbour may leave room for one, not for all."""

    def __init__(self, processors: int) -> None:
        self._processors = processors
        self._latest: dict[bool, _YardstickRead] = {}
        self._all = Copies(_load_yardstick, processors, 1)
        self._one = Copies(_load_yardstick, 1, 1)

    def __enter__(self) -> _Yardstick:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            for copies in (self._all, self._one):
                stack.enter_context(copies)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def read(self, *, is_full: bool) -> _YardstickRead:
        """Run it in as many processes as a layout that fills the machine, or does not, needs."""
        copies, count = (self._all, self._processors) if is_full else (self._one, 1)
        ran = copies.run(_YARDSTICK_S)
        self._latest[is_full] = _YardstickRead(ran.calls_per_s.value, count * (1 - min(ran.cpu_share, 1.0)))
        return self._latest[is_full]

    def latest(self, *, is_full: bool) -> _YardstickRead:
        """Return the latest reading: the one after a layout is that before the next."""
        return self._latest.get(is_full) or self.read(is_full=is_full)


@dataclass(frozen=True)
class Ran:
    """Calls a second of all copies together, and the share of the time in which a copy had a processor."""

    calls_per_s: Interval
    cpu_share: float


class Copies:
    """Processes that each have loaded a model and called it twice; `run` has all of them call it at once.

    `call_s` is the slowest second call of a copy, `copy_bytes` the most memory that one has taken. They end with the block.

    Args:
        load: Called in each of them.
        copies: Their number.
        threads: Threads of each.
        until: Reading of `time.monotonic()` after which nothing is waited for.
    """

    def __init__(self, load: Load, copies: int, threads: int, until: float = math.inf) -> None:
        self.call_s, self.copy_bytes = 0.0, 0
        self._load, self._copies, self._threads, self._until = load, copies, threads, until
        self._ends, self._processes = list[Connection](), list[BaseProcess]()

    def __enter__(self) -> Copies:
        """Start them, and wait until every copy is ready.

        Raises:
            CopyFailedError: one is not.
        """
        try:
            for _ in range(self._copies):
                self._start()
            ready = self._receive(_Ready)
        except (CopyFailedError, OSError) as error:  # no process or no memory is left for another copy
            self.__exit__(None, None, None)
            raise CopyFailedError(str(error)) from None
        self.call_s = max(one.call_s for one in ready)
        self.copy_bytes = max(one.grown_bytes for one in ready)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the copies, whatever they do."""
        for process in self._processes:
            process.kill()
        for process, end in zip(self._processes, self._ends, strict=True):
            process.join()
            end.close()

    def run(self, seconds: float) -> Ran:
        """Have all copies call the model at once, for so many seconds that count.

        Raises:
            CopyFailedError: a copy has died, or its call does not end.
        """
        began = time.monotonic_ns() + int(_LEAD_S * 1e9)
        ended = began + int(seconds * 1e9)
        for end in self._ends:
            with contextlib.suppress(BrokenPipeError):  # it has died: receiving tells
                end.send((began, ended))
        copies = self._receive(_CopyRan)
        return Ran(
            rate_of([copy.returned_ns for copy in copies], began, ended), float(np.mean([copy.cpu_share for copy in copies]))
        )

    def _start(self) -> None:
        fork = multiprocessing.get_context("fork")
        here, there = fork.Pipe()
        process = fork.Process(target=_serve, args=(there, self._load, self._threads, os.getpid()), daemon=True)
        process.start()
        there.close()
        self._ends.append(here)
        self._processes.append(process)

    def _receive(self, wanted: type[_T]) -> list[_T]:
        """Return the next message of every copy."""
        found = []
        for end, process in zip(self._ends, self._processes, strict=True):
            if not end.poll(max(0.0, min(self._until - time.monotonic(), _LONGEST_WAIT_S))):
                raise CopyFailedError("a copy gave no answer in time")
            found.append(_message(end, process, wanted))
        return found


@dataclass(frozen=True)
class _Ready:
    call_s: float
    grown_bytes: int


@dataclass(frozen=True, eq=False)
class _CopyRan:
    returned_ns: NDArray[np.int64]
    cpu_share: float


_T = TypeVar("_T", _Ready, _CopyRan)


def _message(end: Connection, process: BaseProcess, wanted: type[_T]) -> _T:
    try:
        message = end.recv()
    except (EOFError, ConnectionError):
        process.join(1.0)
        raise CopyFailedError(f"a copy died, exit code {process.exitcode}") from None
    if not isinstance(message, wanted):
        raise CopyFailedError(str(message))
    return message


def rate_of(returned_ns: Sequence[NDArray[np.int64]], began_ns: int, ended_ns: int) -> Interval:
    """Return the calls a second of all copies between two readings of one clock, with their 95% interval.

    Args:
        returned_ns: For each copy, the reading at its start and at the return of each call; the last is not before `ended_ns`.
        began_ns: Where the seconds begin that count.
        ended_ns: Where they end.
    """
    calls = min(int(np.searchsorted(times, ended_ns)) for times in returned_ns)
    blocks = max(_FEWEST_BLOCKS, min(_BLOCKS, calls // _CALLS_A_BLOCK))
    edges = np.linspace(began_ns, ended_ns, blocks + 1)
    # A call that reaches over an edge counts on both sides, by its parts.
    counted = np.sum([np.diff(np.interp(edges, times, np.arange(len(times)))) for times in returned_ns], axis=0)
    rates = counted / ((ended_ns - began_ns) / blocks / 1e9)
    value = float(np.mean(rates))
    spread = float(stdtrit(blocks - 1, 0.975) * np.std(rates, ddof=1) / math.sqrt(blocks)) / value
    factor = 1 + math.hypot(spread, _BETWEEN_RUNS)
    return Interval(value, value / factor, value * factor)


def _serve(connection: Connection, load: Load, threads: int, parent: int) -> None:
    """Be a copy: load, call twice, then call for the seconds that are asked for, again and again."""
    die_with(parent)
    try:
        torch.set_num_threads(threads)
        keep_memory()
        forget_peak()
        before = resident_bytes()
        call = load(threads)
        call()
        started = time.monotonic()
        call()
        connection.send(_Ready(time.monotonic() - started, max(0, peak_resident_bytes() - before)))
        while True:
            connection.send(_run(call, *connection.recv()))
    except (EOFError, BrokenPipeError):
        return  # the parent has closed its end
    except Exception as error:  # the runtime's own, or that of the user's model: it ends this layout, and is told
        connection.send(f"{type(error).__name__}: {error}".partition("\n")[0])


def _run(call: Callable[[], object], began_ns: int, ended_ns: int) -> _CopyRan:
    time.sleep(max(0.0, (began_ns - time.monotonic_ns()) / 1e9))
    returned, used_ns = [time.monotonic_ns()], time.process_time_ns()
    while returned[-1] < ended_ns:
        call()
        returned.append(time.monotonic_ns())
    share = (time.process_time_ns() - used_ns) / (returned[-1] - returned[0])
    return _CopyRan(np.array(returned, dtype=np.int64), share)


def _load_yardstick(threads: int) -> Callable[[], object]:  # noqa: ARG001 -- it always runs on one
    return reference_workload()


def _require_memory(copies: int, copy_bytes: int) -> None:
    free_bytes = _MEMORY_SHARE * MachineMemory().available_bytes()
    if copies * copy_bytes > free_bytes:
        raise CopyFailedError(f"{copies} x {copy_bytes / 2**30:.1f} GiB do not fit into the free memory")
