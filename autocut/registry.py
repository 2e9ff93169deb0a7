"""The one way to add a method: a function, a decorator, a name.

A registry knows the methods of one axis. A method is ONE function in ONE file; registering it makes the space accept its
name, `autocut methods` list it and the contract tests of its kind run it. Nothing else keeps a list of methods.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, TypeVar

from autocut.errors import MissingDependencyError, unknown_name

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method(Generic[F]):
    """One registered method.

    `version` is part of every stage key: raise it when the method's results change. `requires` names importable modules;
    `options` carries what the registry's kind needs to know about the method (documented where the registry is made).
    """

    axis: str
    name: str
    function: F
    version: int
    requires: tuple[str, ...]
    options: dict[str, Any]

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def missing(self) -> tuple[str, ...]:
        """Names of required modules that are not installed."""
        return tuple(name for name in self.requires if importlib.util.find_spec(name) is None)


class Registry(Generic[F]):
    """Methods of one axis by name, in the order of registration."""

    def __init__(self, axis: str) -> None:
        self.axis = axis
        self._methods: dict[str, Method[F]] = {}

    def register(self, name: str, *, version: int = 1, requires: tuple[str, ...] = (), **options: Any) -> Callable[[F], F]:
        """Register the decorated function as `name`.

        Raises:
            ValueError: `name` is taken. Two methods of one name would make old stage keys lie.
        """

        def decorate(function: F) -> F:
            if name in self._methods:
                raise ValueError(f"{self.axis} has a method {name!r} already: {self._methods[name].function.__module__}")
            self._methods[name] = Method(self.axis, name, function, version, requires, options)
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
                f"{self.axis} {name!r} needs {', '.join(missing)}, which is not installed", f"pip install {' '.join(missing)}"
            )
        return method.function

    def method(self, name: str) -> Method[F]:
        """Return the record of `name`, whether or not its requirements are installed."""
        try:
            return self._methods[name]
        except KeyError:
            raise unknown_name(self.axis, name, self._methods) from None

    def __contains__(self, name: object) -> bool:
        """Tell whether `name` is registered."""
        return name in self._methods

    def __iter__(self) -> Iterator[Method[F]]:
        """Iterate over the methods in the order of registration."""
        return iter(self._methods.values())

    def names(self) -> tuple[str, ...]:
        """All names in the order of registration."""
        return tuple(self._methods)


def import_all(package: ModuleType) -> None:
    """Import every module below `package`, so that the methods in it register themselves.

    An import error is not swallowed: a method that cannot be imported is a bug, not a missing method.
    """
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
