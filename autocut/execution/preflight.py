"""Facts that the command line needs before a search, found in another process.

Method names, the task and its faults need torch and the user's code. The driver of the search imports neither.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocut.errors import FaultsError, TaskError
from autocut.execution.tried_devices import AS_IT_IS, AskedTraining, choose_training, require_serving_on
from autocut.measure.parent_death import die_with
from autocut.precision import PLAIN, TrainingWay
from autocut.recipe import Lowering, without_kept
from autocut.search.first_guesses import KEPT_GAIN, ModelTraits
from autocut.space import Space

if TYPE_CHECKING:
    from autocut.stages.device import Device
    from autocut.task.task import Task

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class TaskFacts:
    """Facts about a task that the driver needs.

    `data_hash` is what workers make a part of the fingerprint, `data_facts` what the study keeps about the data. A study of an
    earlier version has neither. `source_sha256` is the hash of the source that the fingerprint was found for.
    `students` are the names of the task's students. `traits` of its model say which models it is like. `is_share`: its
    metric is surely between 0 and 1. `is_error`: it is minus an error, so surely not above 0.
    """

    name: str
    fingerprint: str
    train_samples: int
    epochs: int
    is_pretrained: bool
    shares_examples: bool = True
    notes: tuple[str, ...] = ()
    data_hash: str = ""
    data_facts: Mapping[str, Any] = field(default_factory=dict)
    source_sha256: str = ""
    students: tuple[str, ...] = ()
    traits: ModelTraits | None = None
    is_share: bool = False
    is_error: bool = False


@dataclass(frozen=True)
class LoweringProbe:
    """A pair of dtype and compile mode.

    `reason` says why it cannot run here (None: it can). `graph` names what its accuracy depends on. `seconds` is the expected time
    until it runs, or `seconds_per_100mb` of the untouched model's weights where that is more and known. `speedup` is what its
    methods guess that it brings, for lowerings that no similar model has tried (None: they guess nothing). `keeps_float`: its most
    sensitive layers may stay float. `is_accelerated`: the processor has instructions for its dtype.
    """

    reason: str | None
    graph: str
    seconds: float
    speedup: float | None = None
    keeps_float: bool = False
    seconds_per_100mb: float | None = None
    is_accelerated: bool = True


@dataclass(frozen=True)
class Preflight:
    """Method names by axis, every lowering, the task, what does not fit it (a reason by axis and name), and required modules.

    `stage_libraries` are the versions of the distributions that the key of every stage names. `mode_libraries` are those that the
    keys of one compile mode's stages alone name, by mode. `missing_compiler` says why Inductor cannot compile here; empty: it can.
    """

    methods: Mapping[str, tuple[str, ...]]
    lowerings: Mapping[Lowering, LoweringProbe]
    task: TaskFacts
    unfit: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    stage_libraries: Mapping[str, str] = field(default_factory=dict)
    mode_libraries: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    missing_compiler: str = ""
    training: TrainingWay = PLAIN


Begun = Callable[[str], tuple[Path, Mapping[str, Any] | None, bool]]
"""From a task's name: the folder of its study, the facts of the study (None: it is new), and whether all data are to be hashed."""


def _not_begun(task_name: str) -> tuple[Path, Mapping[str, Any] | None, bool]:
    return Path(task_name), None, False


def preflight(
    task: str | None,
    ask: Callable[..., Mapping[str, str]] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    *,
    trains: bool = True,
    training: AskedTraining = AS_IT_IS,
    serve_on: str = "cpu",
    begun: Begun = _not_begun,
) -> Preflight:
    """List the methods, check the task in the file `task` (None: the embedded digits task) and return the facts about it.

    The caller must hold the quiet lock, because another search may be timing. `ask` loads the task in a worker process (see
    `task.check`). `meanwhile` is called here while the other process works. `trains` is false where the space has no training: a
    pretrained model is then not tried in a training step. What `training` or `serve_on` bring to a GPU is tried there, and steps of
    training are timed (`choose_training`). `begun` is called in the other process: where a study was begun, it decides how the data
    are hashed, and how models are trained.

    Raises:
        TaskError: the task cannot be loaded, its process dies, or it cannot be trained on the GPU.
        StudyError: the study was begun with other data.
        FaultsError: the task has faults; it holds all of them.
    """
    # Spawned, not forked: the other process gets nothing that this one has open.
    spawn, others = multiprocessing.get_context("spawn"), multiprocessing.active_children()
    _track_quietly()
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(os.getpid(),)) as pool:
        looked = pool.submit(_look, task, ask, trains=trains, asked=training, serve_on=serve_on, begun=begun)
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
            # Leaving the pool waits for the process. One that has answered takes a second to end by itself where torch is imported.
            for process in multiprocessing.active_children():
                if process not in others:
                    process.kill()


def with_kept_layers(found: Preflight, space: Space) -> Preflight:
    """Return `found` with the lowerings of `space` that keep layers in float.

    They are guessed to be a little slower than those that keep none, which are tried first.
    """
    kept = {}
    for spelled in space.dtypes():
        dtype, count = without_kept(spelled)
        for (name, mode), made in found.lowerings.items():
            if count and name == dtype and made.keeps_float:
                graph = f"{made.graph}, {count} layers in float" if made.graph else ""
                speedup = None if made.speedup is None else made.speedup**KEPT_GAIN
                kept[spelled, mode] = replace(made, graph=graph, speedup=speedup, seconds_per_100mb=None)
    return replace(found, lowerings={**found.lowerings, **kept})


def _track_quietly() -> None:
    """Start the process that removes semaphores and shared memory which killed processes leave, without its warning.

    What the user's code or its libraries make in the other process (tqdm: a lock) is left whenever that process is killed.
    """
    asked = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (asked, "ignore:resource_tracker:UserWarning")))
    resource_tracker.ensure_running()
    if asked is None:
        del os.environ["PYTHONWARNINGS"]
    else:
        os.environ["PYTHONWARNINGS"] = asked


def _begin(driver: int) -> None:
    """End with the driver, and send what the user's code prints to stderr: stdout is data.

    Processes that the user's code starts are started as in the workers. A spawned process would spawn them, and they could not
    import the task's file.
    """
    die_with(driver)
    os.dup2(2, 1)
    multiprocessing.set_start_method(None, force=True)


def _look(
    task_path: str | None,
    ask: Callable[..., Mapping[str, str]] | None,
    *,
    trains: bool,
    asked: AskedTraining,
    serve_on: str,
    begun: Begun,
) -> Preflight:
    import torch

    from autocut.execution.model_traits import traits_of
    from autocut.execution.worker import keep_libraries_quiet
    from autocut.stages import lowering
    from autocut.stages.compile import mode_names
    from autocut.stages.compilers import missing_compiler
    from autocut.stages.device import Device
    from autocut.stages.libraries import library_versions, mode_libraries, required_libraries
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
    folder, known, rehash = begun(task.name)
    training = TrainingWay()
    if trains or not task.is_pretrained:
        training = choose_training(asked, task, known)
    device = Device(serve_on)
    require_serving_on(device, task)
    traits = traits_of(task)
    lowerings = {pair: _probe(*pair, task, traits, device) for pair in lowering.pairs(device)}
    unfit = unfit_methods(task.kind, is_pretrained=task.is_pretrained, kind=kind_as_used(task))
    if elsewhere := {mode: reason for mode in mode_names() if (reason := lowering.elsewhere_reason(mode, device))}:
        unfit["compile.mode"] = elsewhere | unfit.get("compile.mode", {})
    # What similar models brought was measured on CPUs.
    facts = replace(
        _describe(task, folder, known, rehash=rehash),
        traits=traits if device.is_cpu else None,
        is_share=task.metric_kind.is_binary,
        is_error=task.metric_kind.is_error,
    )
    return Preflight(
        known_methods(task.student_names), lowerings, facts, unfit, required_libraries(), library_versions(), mode_libraries(),
        missing_compiler(python_headers=True) or "", training,
    )  # fmt: skip


def _probe(dtype: str, mode: str, task: Task, traits: ModelTraits, device: Device) -> LoweringProbe:
    from autocut.stages import lowering

    reason = lowering.infeasible_reason(dtype, mode, device) or lowering.fixed_shape_reason(mode, task.dynamic, device)
    return LoweringProbe(
        reason,
        graph="" if reason else lowering.numerics(dtype, mode, device),
        seconds=lowering.seconds_until_run(mode, device),
        speedup=lowering.guessed_speedup(dtype, mode, device, has_convolutions=traits.convolutions > 0),
        keeps_float=lowering.keeps_float(dtype, mode, device),
        seconds_per_100mb=lowering.seconds_per_100mb(dtype, mode, device),
        is_accelerated=lowering.is_accelerated(dtype, device),
    )


def _describe(task: Task, folder: Path, known: Mapping[str, Any] | None, *, rehash: bool) -> TaskFacts:
    """Find the facts about the task, its data hashed as its study does it; for a new study decide how."""
    from autocut.task.data_identity import DataIdentity, identify, identify_as_begun, plan_readings, reading_notes

    data: DataIdentity | None = None
    if known is None:
        data = identify(task, plan_readings(task, rehash=rehash))
    else:
        data = identify_as_begun(task, folder, known, rehash=rehash)
    task.know_data("" if data is None else data.digest)
    notes = (*task.notes, *(() if data is None else reading_notes(task, data.readings)))
    samples = len(task.train_data)  # type: ignore[arg-type]
    facts = {} if data is None else data.facts
    return TaskFacts(
        task.name, task.fingerprint, samples, task.epochs, task.is_pretrained, task.share_examples, notes, task.data_hash, facts,
        task.source_sha256, task.student_names,
    )  # fmt: skip
