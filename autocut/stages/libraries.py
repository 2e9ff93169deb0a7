"""Which libraries decide what the stages produce: what their methods say that they require."""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

from autocut.registry import Registry
from autocut.stages.compile import modes
from autocut.stages.compile.onnxruntime import onnx_quantizers
from autocut.stages.prune import pruners
from autocut.stages.quantize import quantizers
from autocut.stages.train import curricula, distillations, orders

_ALWAYS = ("torch", "torchao")
_AXES: tuple[Registry[Any], ...] = (pruners, curricula, orders, distillations, quantizers, modes, onnx_quantizers)


def required_libraries() -> tuple[str, ...]:
    """Importable modules that the registered methods require, torch and torchao first, the others sorted."""
    required = {module for axis in _AXES for method in axis for module in method.requires}
    return (*_ALWAYS, *sorted(required.difference(_ALWAYS)))


def library_versions() -> dict[str, str]:
    """Versions of the distributions that bring the `required_libraries`, by name; what is not installed is left out.

    A distribution may have another name than its module, and a module several of them (onnxruntime and onnxruntime-gpu): then all
    are named.
    """
    names = {name for module in required_libraries() for name in _distributions().get(module.partition(".")[0], ())}
    return {name: _version(name) for name in sorted(names)}


@functools.cache
def _distributions() -> dict[str, tuple[str, ...]]:
    return {module: tuple(names) for module, names in importlib.metadata.packages_distributions().items()}


@functools.cache
def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)
