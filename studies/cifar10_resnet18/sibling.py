"""Modules of `studies/cifar10_resnet20`, under names of their own: both studies have the same data, and a teacher from there.

They are loaded by path. With that folder on `sys.path`, its data.py would be in the way of another study's data.py.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).resolve().parents[1] / "cifar10_resnet20"


def _load(stem: str) -> ModuleType:
    name = f"cifar10_resnet20_{stem}"
    spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{stem}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{_FOLDER / stem}.py must be a module")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # by this name its classes can be pickled
    spec.loader.exec_module(module)
    return module


data, published = _load("data"), _load("resnet")
"""The images of CIFAR-10, and the published networks."""
