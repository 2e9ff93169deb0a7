"""Every method of every axis: where each axis keeps its registry, and what this machine makes of its methods.

The only list here is that of the axes. A method is listed by being registered.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autocut.registry import Registry

REGISTRIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "prune.method": ("autocut.stages.prune", "pruners"),
        "curriculum.schedule": ("autocut.stages.train", "curricula"),
        "curriculum.order": ("autocut.stages.train", "orders"),
        "distill.loss": ("autocut.stages.train", "distillations"),
        "quantize.dtype": ("autocut.stages.quantize", "quantizers"),
        "compile.mode": ("autocut.stages.compile", "modes"),
    }
)
"""Module and name of the registry of each method axis, in the order in which a recipe runs."""


@dataclass(frozen=True)
class MethodRow:
    """One registered method, for a person. `missing` names required modules that are not installed."""

    axis: str
    name: str
    summary: str
    requires: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class PairRow:
    """One pair of dtype and compile mode; `reason` says why this machine cannot run it, None where it can."""

    dtype: str
    mode: str
    reason: str | None


def registry(axis: str) -> Registry[object]:  # type: ignore[type-var]
    """Import and return the registry of a method axis."""
    module, name = REGISTRIES[axis]
    found: Registry[object] = getattr(importlib.import_module(module), name)  # type: ignore[type-var]
    return found


def known_methods() -> dict[str, tuple[str, ...]]:
    """Names registered for each method axis. Imports every method, and with them torch."""
    return {axis: registry(axis).names() for axis in REGISTRIES}


def method_rows() -> list[MethodRow]:
    """Every registered method of every axis."""
    return [
        MethodRow(axis, method.name, method.summary, method.requires, method.missing())
        for axis in REGISTRIES
        for method in registry(axis)
    ]


def pair_rows() -> list[PairRow]:
    """Every pair of dtype and compile mode, and whether it can be real here. Compiles nothing."""
    from autocut.stages import lowering

    dtypes, modes = registry("quantize.dtype").names(), registry("compile.mode").names()
    return [PairRow(dtype, mode, lowering.infeasible_reason(dtype, mode)) for dtype in dtypes for mode in modes]


def unfit_methods(kind: str, *, is_pretrained: bool) -> dict[str, dict[str, str]]:
    """What does not fit a task, by axis and name, with the reason: methods for other kinds, a start that the task does not have."""
    unfit: dict[str, dict[str, str]] = {}
    for axis in REGISTRIES:
        for method in registry(axis):
            kinds = method.options.get("kinds")
            if kinds is not None and kind not in kinds:
                unfit.setdefault(axis, {})[method.name] = f"fits {' and '.join(kinds)}, not {kind}"
    if is_pretrained:
        unfit["train.start"] = {"scratch": "the task brings trained weights"}
    return unfit
