"""Prepares a process from which jobs are forked: it imports and reads once what every job needs.

Before it works, a worker process does little but import and read the task's data: torch at first, then, when a stage first needs
them, the exporters, quantizers and compilers. No list of them is kept here. The names are read from the source of autocut, of its
plug-ins and of the task, where functions import what they need; a method registers the others as its `late_imports`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from autocut.errors import AutocutError
from autocut.execution.forkable import foreign_threads, leaves_alone, what_a_fork_lacks_or_shares
from autocut.registry import plug_in_packages, plug_ins

_WORKER = "autocut.execution.worker"
_DIGITS = "autocut.tasks.digits"
_PUBLIC = "autocut"
"""What it imports late is for users who drive autocut from Python, never for a job."""
_EXPORTER = "torch.export._trace"
"""What torch imports when it first exports (2.13). A later torch may lack it, or the `late_imports` of a method. Then
every process imports what there is instead by itself, which is slow, not wrong."""


def import_for_start() -> None:
    """Import what every job needs before it does anything."""
    plug_ins()  # every registry looks for them
    _import(_WORKER)
    for name in _names_in_source(_WORKER):
        _import(name)
    from autocut.stages.libraries import library_versions

    library_versions()  # every key of a stage names them; looking them up takes longer than the rest of a job's start


def prepare_for_later(task_path: str | None) -> Iterator[str]:
    """Import what a job of this task may import while it runs, and read the task's data; yield what was done after each step.

    Packages that start threads are left to the worker. So are the task's own modules and its data where loading them starts threads
    or processes, keeps files open, seeds the global generators, or changes what a worker is given. The test split is locked: it is
    not read here.

    Raises:
        RuntimeError: a library of a method started a thread, or reading the data did what it had not done before.
    """
    task = None if task_path is None else Path(task_path).expanduser().resolve()
    always = (_EXPORTER, *_late_imports(), _WORKER)
    for name in _import_closure((_DIGITS, *always) if task is None else always):
        if threads := foreign_threads():
            started = ", ".join(threads)
            raise RuntimeError(f"a process that is to be forked must have one thread, but importing {name} started {started}")
        yield name
    wanted = [] if task is None else [name for name in _installed_names(task) if name not in sys.modules]
    if wanted and (yield from leaves_alone(lambda: list(_import_closure(wanted)), foreign_threads)):
        yield from _import_closure(wanted)
    state = partial(what_a_fork_lacks_or_shares, task and task.parent)
    if (yield from leaves_alone(partial(_read, task), state)):
        before = state()
        with contextlib.suppress(AutocutError):  # the file has changed since: the worker that loads it says what is wrong
            _read(task)
        if state() != before:
            raise RuntimeError("a process that is to be forked must stay as it was, but reading the task's data has changed it")
        yield "data"


def _late_imports() -> tuple[str, ...]:
    from autocut.stages.methods import late_imports

    return late_imports()


def _read(task: Path | None) -> None:
    """Load the task and read its data on one thread, because a fork would not have the threads of a pool."""
    import torch

    from autocut.task.loading import load_task

    torch.set_num_threads(1)
    loaded = load_task(task)
    _ = loaded.train_data, loaded.validation_data


def _import_closure(names: Iterable[str]) -> Iterator[str]:
    """Import `names`, the last first, and every module that the loaded modules of autocut and of plug-ins name in an import."""
    waiting, seen, read, packages = list(names), set[str](), set[str](), {"autocut", *plug_in_packages()}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        _import(name)
        yield name
        for own in [own for own in sys.modules if own.partition(".")[0] in packages and own not in {*read, _PUBLIC}]:
            read.add(own)
            waiting += _names_in_source(own)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:
        # Optional, or broken. The method or the task that needs it says so when it is used.
        return


def _installed_names(task: Path) -> list[str]:
    """Return what the task file imports, and the modules beside it that it names, without these modules themselves."""
    waiting, read, found = [task], set[Path](), set[str]()
    while waiting:
        file = waiting.pop()
        if file in read:
            continue
        read.add(file)
        for name in _names_in(file):
            root = task.parent / name.partition(".")[0]
            if root.is_dir() or root.with_suffix(".py").is_file():
                waiting += [root.with_suffix(".py")] if root.with_suffix(".py").is_file() else sorted(root.glob("**/*.py"))
            else:
                found.add(name)
    return sorted(found)


def _names_in_source(module: str) -> list[str]:
    """Names that the source of a loaded module imports, sorted."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return sorted(_names_in(Path(file))) if file else []


def _names_in(file: Path) -> set[str]:
    """Dotted names of the modules that the source in `file` imports absolutely, at its top or inside functions."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return set()  # the process that loads it says what is wrong
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and node.level == 0}
