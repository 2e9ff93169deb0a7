"""Every method of every axis: where each axis keeps its registry, and what this machine makes of its methods.

The only list here is that of the axes. A method is listed by being registered.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autocut.recipe import NO_STUDENT, STUDENT
from autocut.registry import Method, MethodOptions, Registry
from autocut.task.kinds import Kind, kinds

REGISTRIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "prune.method": ("autocut.stages.prune", "pruners"),
        "train.quantization_aware": ("autocut.stages.train", "fake_quantizers"),
        "train.input_growth": ("autocut.stages.train", "input_growths"),
        "curriculum.schedule": ("autocut.stages.train", "curricula"),
        "curriculum.order": ("autocut.stages.train", "orders"),
        "distill.loss": ("autocut.stages.train", "distillations"),
        "distill.features": ("autocut.stages.train", "feature_losses"),
        "quantize.dtype": ("autocut.stages.quantize", "quantizers"),
        "compile.mode": ("autocut.stages.compile", "modes"),
    }
)
"""Module and name of the registry of each method axis, in the order in which a recipe runs."""

AnyMethod = Method[Any, MethodOptions]


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
    """One pair of dtype and compile mode; `reason` says why it cannot run on the `device` of this machine, None where it can."""

    dtype: str
    mode: str
    reason: str | None
    device: str = "cpu"


def registry(axis: str) -> Registry[Any, Any]:
    """Import and return the registry of a method axis."""
    module, name = REGISTRIES[axis]
    found: Registry[Any, Any] = getattr(importlib.import_module(module), name)
    return found


def every_method() -> Iterator[AnyMethod]:
    """Every registered method: of each axis, the kinds of task, and the quantizers that compile modes bring."""
    from autocut.stages.compile import cuda_modes, every_mode

    own = [mode.options.quantizers for mode in every_mode() if mode.options.quantizers is not None]
    for known in (*map(registry, REGISTRIES), cuda_modes, kinds, *own):
        yield from known


def late_imports() -> tuple[str, ...]:
    """Modules that the libraries of the methods import only when they first work."""
    return tuple(dict.fromkeys(name for method in every_method() for name in method.late_imports))


def known_methods(students: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Names registered for each method axis, and the `students` of a task. Imports every method, and with them torch."""
    from autocut.stages.compile import mode_names

    named = {axis: registry(axis).names() for axis in REGISTRIES}
    return {STUDENT: (NO_STUDENT, *students), **named, "compile.mode": mode_names()}


def method_rows() -> list[MethodRow]:
    """Every registered method of every axis, and the kinds of task."""
    from autocut.stages.compile import cuda_modes

    registries = (*map(registry, REGISTRIES), cuda_modes, kinds)
    return [
        MethodRow(method.axis, method.name, method.summary, method.requires, method.missing())
        for known in registries
        for method in known
    ]


def pair_rows(device: str = "cpu") -> list[PairRow]:
    """Every pair of dtype and compile mode of `device`, and whether it can be real here. Compiles nothing."""
    from autocut.stages import lowering
    from autocut.stages.device import Device

    place = Device(device)
    return [PairRow(dtype, mode, lowering.infeasible_reason(dtype, mode, place), device) for dtype, mode in lowering.pairs(place)]


def fitting_kinds(method: AnyMethod) -> tuple[str, ...]:
    """Names of the kinds of task that `method` takes."""
    return tuple(kind.name for kind in kinds if method.options.takes(kind.name, kind.function()))


def unfit_methods(name: str, *, is_pretrained: bool, kind: Kind | None = None) -> dict[str, dict[str, str]]:
    """What does not fit a task, by axis and name, with the reason: methods for other kinds, a start that the task does not have.

    Args:
        name: Name of the task's kind.
        is_pretrained: Whether the task brings trained weights.
        kind: The kind as the task uses it, whose outputs may have another meaning. None: as it is registered.
    """
    registered = kinds[name]()
    kind = kind or registered
    got = name if kind.meaning is registered.meaning else f"outputs that are {kind.meaning.value}"
    unfit: dict[str, dict[str, str]] = {}
    for axis in REGISTRIES:
        for method in registry(axis):
            if not method.options.takes(name, kind):
                unfit.setdefault(axis, {})[method.name] = f"fits {' and '.join(fitting_kinds(method))}, not {got}"
    if is_pretrained:
        unfit["train.start"] = {"scratch": "the task brings trained weights"}
    return unfit
