"""The one way to add a method: a function, a decorator, a name.

A registry knows the methods of one axis. A method is ONE function in ONE file. Registering it makes the space accept its name,
`autocut methods` list it and the contract tests of its axis run it. Nothing else keeps a list of methods.

autocut's own methods are the files in the folder of their axis. A method of another package, a plug-in, is named by an entry point
of that package::

    [project.entry-points."autocut.methods"]
    int3 = "my_package.int3"

A registry imports all plug-ins before its first answer. So every process knows the same methods: the check of the task, the
workers, the verification of a bundle, and `autocut.load`. (A method in a task file would be unknown to the last two.) A bundle
names the packages of the plug-ins that were installed when it was made.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from autocut.errors import InputError, MissingDependencyError, quoted, unknown_name

PLUG_INS = "autocut.methods"
"""Group of the entry points that name plug-ins."""


@dataclass(frozen=True)
class MethodOptions:
    """What a method of any axis may say of itself. An axis that asks for more has a record of its own, made from this one.

    `kinds` names the kinds of task that the method takes; None takes all. A model that it cannot take makes the method raise
    `InfeasibleRecipeError`.
    """

    kinds: tuple[str, ...] | None = None

    def takes(self, kind_name: str, kind: Any) -> bool:  # noqa: ARG002  (an axis may look at the `Kind` itself)
        """Whether the method fits tasks of the kind `kind_name`, whose record is `kind`."""
        return self.kinds is None or kind_name in self.kinds


F = TypeVar("F", bound=Callable[..., Any])
O = TypeVar("O", bound=MethodOptions, covariant=True)  # noqa: E741  (F and O, as everywhere: function and options)


@dataclass(frozen=True)
class Method(Generic[F, O]):
    """One registered method.

    `version` is part of every stage key: raise it when the method's results change. `requires` names the importable modules that it
    needs, and `install` the command that brings them where that is not ``pip install`` with these names. `late_imports` names
    modules that its libraries import only when they first work: the fork server imports them once for all jobs. `options` is a
    record of the axis, documented where the registry is made.
    """

    axis: str
    name: str
    function: F
    options: O
    version: int = 1
    requires: tuple[str, ...] = ()
    install: str = ""
    late_imports: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def missing(self) -> tuple[str, ...]:
        """Names of required modules that are not installed."""
        return tuple(name for name in self.requires if importlib.util.find_spec(name) is None)

    def install_command(self) -> str:
        """Return the command that installs what is missing."""
        return self.install or f"pip install {' '.join(self.missing())}"


class Registry(Generic[F, O]):
    """Methods of one axis by name, in the order of registration.

    Args:
        axis: The axis, as a space spells it.
        options: The record that the options of `register` are read into.
    """

    def __init__(self, axis: str, options: Callable[..., O]) -> None:
        self.axis = axis
        self._options = options
        self._methods: dict[str, Method[F, O]] = {}

    def register(
        self,
        name: str,
        *,
        version: int = 1,
        requires: tuple[str, ...] = (),
        install: str = "",
        late_imports: tuple[str, ...] = (),
        **options: Any,
    ) -> Callable[[F], F]:
        """Register the decorated function as `name`; `Method` says what the arguments mean.

        Raises:
            TypeError: the axis has no such option, or needs one that is missing.
            ValueError: `name` is taken. Two methods of one name would make old stage keys lie.
        """
        record = self._options(**options)

        def decorate(function: F) -> F:
            if name in self._methods:
                raise ValueError(f"{self.axis} has a method {quoted(name)} already: {self._methods[name].function.__module__}")
            self._methods[name] = Method(self.axis, name, function, record, version, requires, install, late_imports)
            return function

        return decorate

    def __getitem__(self, name: str) -> F:
        """Return the function registered as `name`.

        Raises:
            UnknownNameError: with the nearest name as its hint.
            MissingDependencyError: the method needs a module that is not installed.
        """
        method = self.method(name)
        if missing := method.missing():
            raise MissingDependencyError(
                f"{self.axis} {quoted(name)} needs {', '.join(missing)}, which is not installed", method.install_command()
            )
        return method.function

    def method(self, name: str) -> Method[F, O]:
        """Return the record of `name`, whether or not its requirements are installed."""
        if name not in self:
            raise unknown_name(self.axis, name, self._methods)
        return self._methods[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether `name` is registered."""
        _import_plug_ins()
        return isinstance(name, str) and name in self._methods

    def __iter__(self) -> Iterator[Method[F, O]]:
        """Iterate over the methods in the order of registration."""
        _import_plug_ins()
        return iter(self._methods.values())

    def names(self) -> tuple[str, ...]:
        """All names in the order of registration."""
        return tuple(method.name for method in self)


def import_all(package: ModuleType) -> None:
    """Import every module below `package`, so that the methods in it register themselves.

    An import error is not swallowed: a method that cannot be imported is a bug, not a missing method.
    """
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)


@functools.cache
def plug_ins() -> tuple[EntryPoint, ...]:
    """Entry points of the installed plug-ins, sorted by name."""
    return tuple(sorted(entry_points(group=PLUG_INS), key=lambda entry: (entry.name, entry.value)))


def plug_in_packages() -> frozenset[str]:
    """Names of the top-level packages that plug-ins lie in."""
    return frozenset(entry.module.partition(".")[0] for entry in plug_ins())


def plug_in_folders() -> tuple[str, ...]:
    """Folders that must be on the search path for Python to find the plug-ins, usually site-packages."""
    return tuple(sorted({str(Path(str(entry.dist.locate_file(""))).resolve()) for entry in plug_ins() if entry.dist}))


_failures: dict[EntryPoint, Exception | None] = {}
"""Plug-ins that have been imported, or are being imported now, with the error that this raised."""


def _import_plug_ins() -> None:
    """Import every plug-in once.

    Raises:
        InputError: a plug-in cannot be imported. It is raised at every call, so nothing goes on without the plug-in.
    """
    for entry in plug_ins():
        if entry not in _failures:
            _failures[entry] = None  # before the import, because a plug-in may ask a registry itself
            try:
                entry.load()
            except Exception as error:
                # The code of others may raise anything.
                _failures[entry] = error
        if failure := _failures[entry]:
            raise InputError(
                f"plug-in {quoted(entry.name)} must import without an error, got {type(failure).__name__}: {failure}",
                f"python -c 'import {entry.module}' shows the traceback; without the package, autocut runs as before",
            ) from failure
