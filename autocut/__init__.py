"""autocut cuts what a PyTorch model costs.

It takes a task, searches over pruning, quantization, compilation, curriculum and distillation within a budget, and returns a Pareto
front of measured, deployable models::

    import autocut

    faults = autocut.check("task.py")                       # every fault of a task, each with a hint
    study = autocut.search("task.py", budget="8h")          # `autocut search` in a process of its own
    study = autocut.open_study("studies/my-model")          # what a search wrote
    chosen = study.select(max_accuracy_drop=0.01)           # one point of `study.front()`, and why
    study.explain(chosen.point)                             # which knob bought what
    study.report()                                          # one HTML file
    study.export(chosen.point, "out/")                      # a bundle
    autocut.verify("out/")                                  # its claims, in a fresh process
    autocut.remeasure("out/")                               # its claims beside what this machine gives
    autocut.compare("out/", "other/")                       # two bundles by turns, or two studies
    model = autocut.load("out/")                            # a deployed model, without the code that trained it

`autocut.api` says more. A task.py needs `autocut.Task` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocut.api import OpenedStudy, check, compare, open_study, remeasure, search, verify
    from autocut.deploy.bundle import load
    from autocut.task.task import Task

__version__ = "0.1.0"
__all__ = ["OpenedStudy", "Task", "__version__", "check", "compare", "load", "open_study", "remeasure", "search", "verify"]

_HOMES = {
    "OpenedStudy": "autocut.api",
    "Task": "autocut.task.task",
    "check": "autocut.api",
    "compare": "autocut.api",
    "load": "autocut.deploy.bundle",
    "open_study": "autocut.api",
    "remeasure": "autocut.api",
    "verify": "autocut.api",
}


def __getattr__(name: str) -> Any:
    """Import torch only when a name needs it, so that `autocut --help` is instant."""
    if name == "search":  # the package `autocut.search`, which can be called: Python keeps both under one name
        return importlib.import_module("autocut.search")
    if name not in _HOMES:
        raise AttributeError(f"module 'autocut' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, those that are not imported yet too."""
    return sorted({*globals(), *__all__})
