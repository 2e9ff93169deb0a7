"""Which libraries decide what the stages produce, and which run it: what the methods say that they require."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable

from autocut.registry import Method, plug_ins
from autocut.stages.compile import Compiler, ModeOptions, modes
from autocut.stages.methods import every_method
from autocut.task.identity import distributions

_ALWAYS = ("torch", "torchao")


def required_libraries() -> tuple[str, ...]:
    """Importable modules that the registered methods require, torch and torchao first, the others sorted."""
    required = {module for method in every_method() for module in method.requires}
    return (*_ALWAYS, *sorted(required.difference(_ALWAYS)))


def library_versions() -> dict[str, str]:
    """Versions of the distributions that bring the `required_libraries`, by name; what is not installed is left out.

    So is what a compile mode needs for itself alone and names in its own key (`ModeOptions.names_its_libraries`). A distribution
    may have another name than its module, and a module several of them (onnxruntime and onnxruntime-gpu): then all are named.
    """
    own = {module for mode in _naming_their_own() for module in mode.requires}
    return versions_of(module for module in required_libraries() if module not in own)


def mode_libraries() -> dict[str, dict[str, str | None]]:
    """By compile mode, the versions of what the keys of its stages alone name; None for a module that is not installed."""
    return {
        mode.name: {name: version for module in mode.requires for name, version in _found_or_missing(module)}
        for mode in _naming_their_own()
    }


def versions_of(modules: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions that bring `modules`, by name; what is not installed is left out."""
    names = {name for module in modules for name in distributions().get(module.partition(".")[0], ())}
    return {name: _version(name) for name in sorted(names)}


def runtime_versions() -> dict[str, str]:
    """Versions of the distributions that run artifacts: torch's, those of the compile modes, numpy, and the plug-ins."""
    modules = {module for mode in modes for module in mode.options.runs_with}
    runtimes = sorted({name for module in modules for name in distributions().get(module, ())})
    own = [entry.dist.name for entry in plug_ins() if entry.dist]
    return {name: _version(name) for name in dict.fromkeys((*_ALWAYS, *runtimes, "numpy", *own))}


def _found_or_missing(module: str) -> list[tuple[str, str | None]]:
    return [*versions_of([module]).items()] or [(module, None)]


def _naming_their_own() -> list[Method[Compiler, ModeOptions]]:
    return [mode for mode in modes if mode.options.names_its_libraries]


@functools.cache
def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)
