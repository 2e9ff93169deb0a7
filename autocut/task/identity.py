"""Hashes of a task's weights and of its code outside the task's own folder: its results depend on both.

A hash is the same in every process and on every machine. It contains no absolute path, no address and no import order.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from functools import cache, partial
from pathlib import Path

from torch import Tensor, nn

from autocut.task.batches import tensor_identity

_KEYED_ELSEWHERE = {"autocut", "torch"}
"""Stage keys contain the version of torch and of each of autocut's methods."""

_PATHLESS = {"__main__", "__mp_main__", "builtins"}
"""Modules without a file, or with another file in another process."""


def state_hash(model: nn.Module) -> bytes:
    """SHA-256 over names, dtypes, shapes and values of the model's state."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(tensor_identity(name, value))
    return digest.digest()


def code_hash(things: Iterable[object], known: Collection[Path] = ()) -> bytes:
    """SHA-256 over the code of `things` (models, functions, or None), except for the files in `known`.

    The code of a model is the classes of all its modules, and their bases. A file of the user counts with its content, a file of an
    installed package with the name and version of the package. The standard library, torch and autocut do not count: stage keys
    name the last two themselves. Imports in these files are not followed.
    """
    names = {name for thing in things for name in _modules_of(thing)}
    parts = {part for name in names if (part := _identity(name, known)) is not None}
    digest = hashlib.sha256()
    for part in sorted(parts):
        digest.update(part + b"\0")
    return digest.digest()


def _modules_of(thing: object) -> Iterator[str]:
    """Names of the Python modules that define a model's classes, a function, or the class of a callable."""
    if isinstance(thing, partial):
        yield from _modules_of(thing.func)
    elif isinstance(thing, nn.Module):
        yield from {base.__module__ for module in thing.modules() for base in type(module).__mro__}
    elif isinstance(thing, type):
        yield from {base.__module__ for base in thing.__mro__}
    elif isinstance(getattr(thing, "__module__", None), str) and hasattr(thing, "__qualname__"):
        yield str(thing.__module__)  # a function or a bound method
    elif thing is not None:
        yield from {base.__module__ for base in type(thing).__mro__}


def _identity(name: str, known: Collection[Path]) -> bytes | None:
    """Bytes that identify the version of the module `name`. None if it does not count."""
    root = name.partition(".")[0]
    file = getattr(sys.modules.get(name), "__file__", None)
    if root in _KEYED_ELSEWHERE | _PATHLESS or not isinstance(file, str) or Path(file) in known:
        return None
    path = Path(file)
    if {"site-packages", "dist-packages"} & set(path.parts):
        owners = sorted(set(distributions().get(root, ())))
        return " ".join(f"{owner}=={importlib.metadata.version(owner)}" for owner in owners).encode()
    if any(path.is_relative_to(folder) for folder in _standard_library()):
        return None
    # The content without the module's name, because the name of a task file's module contains its path.
    return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None


@cache
def _standard_library() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")})


@cache
def distributions() -> dict[str, list[str]]:
    """Distributions by the top-level names that they install. Takes half a second, because it reads all installed packages."""
    return dict(importlib.metadata.packages_distributions())
