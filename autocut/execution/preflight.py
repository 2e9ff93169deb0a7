"""Facts that the command line needs before a search, found in another process.

Method names, the task and its faults need torch and the user's code. The driver of the search imports neither.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from autocut.errors import FaultsError, TaskError
from autocut.measure.parent_death import die_with
from autocut.recipe import Lowering

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class TaskFacts:
    """Facts about a task that the driver needs."""

    name: str
    fingerprint: str
    train_samples: int
    epochs: int
    is_pretrained: bool
    shares_examples: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoweringProbe:
    """A pair of dtype and compile mode.

    `reason` says why it cannot run here (None: it can). `graph` names what its accuracy depends on. `seconds` is the expected time
    until it runs, and `speedup` a guess of what it brings, as long as nothing was measured.
    """

    reason: str | None
    graph: str
    seconds: float
    speedup: float = 1.0


@dataclass(frozen=True)
class Preflight:
    """Method names by axis, every lowering, the task, what does not fit it (a reason by axis and name), and required modules.

    `stage_libraries` are the versions of the distributions that the key of every stage names.
    """

    methods: Mapping[str, tuple[str, ...]]
    lowerings: Mapping[Lowering, LoweringProbe]
    task: TaskFacts
    unfit: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    stage_libraries: Mapping[str, str] = field(default_factory=dict)


def preflight(
    task: str | None,
    ask: Callable[..., Mapping[str, str]] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    *,
    trains: bool = True,
) -> Preflight:
    """List the methods, check the task in the file `task` (None: the embedded digits task) and return the facts about it.

    The caller must hold the quiet lock, because another search may be timing. `ask` loads the task in a worker process (see
    `task.check`). `meanwhile` is called here while the other process works. `trains` is false where the space has no training: a
    pretrained model is then not tried in a training step.

    Raises:
        TaskError: the task cannot be loaded, or its process dies.
        FaultsError: the task has faults; it holds all of them.
    """
    # Spawned, not forked: the other process gets nothing that this one has open.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(os.getpid(),)) as pool:
        looked = pool.submit(_look, task, ask, trains=trains)
        try:
            meanwhile()
            return looked.result(timeout=_TIMEOUT_S)
        except TimeoutError:
            raise TaskError(
                f"task {task} must be checked within {_TIMEOUT_S:g} seconds, but is not", "run: autocut check"
            ) from None
        except BrokenProcessPool as error:
            raise TaskError(
                f"task {task} must load in a process of its own, but that process died", "run: autocut check"
            ) from error
        finally:
            # If it has not answered, leaving the pool would wait for it.
            for process in () if looked.done() else multiprocessing.active_children():
                process.kill()


def _begin(driver: int) -> None:
    """End with the driver, and send what the user's code prints to stderr: stdout is data."""
    die_with(driver)
    os.dup2(2, 1)


def _look(task_path: str | None, ask: Callable[..., Mapping[str, str]] | None, *, trains: bool) -> Preflight:
    import torch

    from autocut.execution.worker import keep_libraries_quiet
    from autocut.stages import lowering
    from autocut.stages.compile import modes
    from autocut.stages.libraries import library_versions, required_libraries
    from autocut.stages.methods import known_methods, unfit_methods
    from autocut.stages.train import kind_as_used
    from autocut.task.check import check_task
    from autocut.task.library_noise import quietly
    from autocut.task.loading import load_task

    keep_libraries_quiet()
    torch.set_num_threads(1)
    with quietly():
        task = load_task(task_path)
    if faults := check_task(task_path, ask, trains=trains):
        raise FaultsError(f"task {task.name}", faults)
    convolves, lowerings = lowering.has_convolutions(task.build_model()), {}
    for dtype, mode in lowering.pairs():
        reason = lowering.infeasible_reason(dtype, mode) or lowering.fixed_shape_reason(mode, task.dynamic)
        graph = "" if reason else lowering.numerics(dtype, mode)
        lowerings[dtype, mode] = LoweringProbe(
            reason, graph, modes.method(mode).options.seconds, lowering.guessed_speedup(dtype, mode, has_convolutions=convolves)
        )
    samples, notes = len(task.train_data), tuple(task.folded.notes())  # type: ignore[arg-type]
    facts = TaskFacts(task.name, task.fingerprint, samples, task.epochs, task.is_pretrained, task.share_examples, notes)
    unfit = unfit_methods(task.kind, is_pretrained=task.is_pretrained, kind=kind_as_used(task))
    return Preflight(known_methods(), lowerings, facts, unfit, required_libraries(), library_versions())
