"""Imports what jobs will import, once for all of them.

Half of what a worker process does before it works is importing: torch at first, then, when a stage first needs them, the
exporters, quantizers and compilers. No list of them is kept here: the names are read from autocut's own source, where functions
import what they need, and from the task's.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from autocut.parent_death import die_with

_WORKER = "autocut.search.worker"
_DIGITS = "autocut.tasks.digits"
_LAZY_LIBRARIES = (
    "torch.export._trace",
    "torch.onnx._internal.exporter._compat",
    "onnxscript.function_libs.torch_lib.ops",
)
"""What torch imports when its exporters first run (2.13). Should one go, every process imports it again: slow, not wrong."""
_LOOK_AGAIN_S = 0.02
_HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})
"""Of pyarrow's allocator, which prepares itself for every fork and starts the thread again."""


def import_for_start() -> None:
    """Import what every job needs before it does anything."""
    _import(_WORKER)
    for name in _names_in_source(_WORKER):
        _import(name)


def imports_for_later(task_path: str | None) -> Iterator[str]:
    """Import what a job of this task may import while it runs, and yield the name of each module that was.

    The task's own modules are not imported: they may change, may compute something, and are the worker's to load. What they import
    from installed packages is, unless that starts threads, which a fork would lose.

    Raises:
        RuntimeError: a library of autocut's own started a thread.
    """
    for name in _import_closure((_DIGITS, *_LAZY_LIBRARIES, _WORKER) if task_path is None else (*_LAZY_LIBRARIES, _WORKER)):
        if threads := foreign_threads():
            started = ", ".join(threads)
            raise RuntimeError(f"a process that is to be forked must have one thread, but importing {name} started {started}")
        yield name
    from autocut.stages.libraries import library_versions

    library_versions()  # every key of a stage names them; looking them up takes longer than the rest of a job's beginning
    wanted = [] if task_path is None else [name for name in _installed_names(Path(task_path)) if name not in sys.modules]
    if wanted and (yield from _leave_one_thread(wanted)):
        yield from _import_closure(wanted)


def foreign_threads() -> list[str]:
    """Names of this process's threads but for the main one and those that survive a fork. Linux only; elsewhere none are seen."""
    tasks = Path("/proc/self/task")
    others = [task for task in tasks.iterdir() if task.name != str(os.getpid())] if tasks.is_dir() else []
    names = [(task / "comm").read_text(encoding="utf-8", errors="replace").strip() for task in others]
    return [name for name in names if name not in _HARMLESS_THREADS]


def _import_closure(names: Iterable[str]) -> Iterator[str]:
    """Import `names`, the last first, and what modules of autocut that are loaded by then name in an import anywhere in them."""
    waiting, seen, read = list(names), set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        _import(name)
        yield name
        for own in [own for own in sys.modules if own.partition(".")[0] == "autocut" and own not in read]:
            read.add(own)
            waiting += _names_in_source(own)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:
        # Optional, or broken: the method or the task that needs it says so when it is used.
        return


def _leave_one_thread(names: Iterable[str]) -> Generator[str, None, bool]:
    """Whether importing `names` starts no thread: tried out in a process that ends with the answer, and yielding until it has."""
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with(own)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # connections of jobs among them
            list(_import_closure(names))
            os._exit(len(foreign_threads()))
        finally:
            os._exit(1)
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        yield "tried out"
        time.sleep(_LOOK_AGAIN_S)
    return ended[1] == 0


def _installed_names(task: Path) -> list[str]:
    """What the task file and the modules beside it that it names import, without these modules themselves."""
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
    """Those of a loaded module, sorted."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return sorted(_names_in(Path(file))) if file else []


def _names_in(file: Path) -> set[str]:
    """Dotted names of the modules that the source in `file` imports absolutely, at its top or inside functions."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return set()  # whoever loads it says what is wrong
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and node.level == 0}
