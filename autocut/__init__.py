"""autocut cuts what a PyTorch model costs.

It takes a task, searches over pruning, quantization, compilation, curriculum and distillation within a budget, and returns a Pareto
front of measured, deployable models. From Python, two names are enough::

    from autocut import Task            # for a task.py
    model = autocut.load("bundle/")     # a deployed model, without the code that trained it
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocut.deploy.bundle import load
    from autocut.task.task import Task

__version__ = "0.1.0"
__all__ = ["Task", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import torch only when a name needs it, so that `autocut --help` is instant."""
    homes = {"Task": "autocut.task.task", "load": "autocut.deploy.bundle"}
    if name not in homes:
        raise AttributeError(f"module 'autocut' has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)
