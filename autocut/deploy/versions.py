"""The versions that a bundle was made with, beside those that are here."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping

from autocut.deploy.manifest import Manifest
from autocut.errors import BundleError, CompilerError, MissingDependencyError, quoted

Changed = Mapping[str, tuple[str, str | None]]
"""By library, the version that made the bundle and the one here, None where it is not installed."""


def versions_note(manifest: Manifest) -> str | None:
    """Say which libraries had another version when the bundle was made; None where all had the one that is here."""
    changed = _changed(manifest)
    return _told(changed) if changed else None


@contextlib.contextmanager
def told_with_versions(manifest: Manifest) -> Iterator[None]:
    """Where a runtime cannot load a bundle's model, name what has another version here: that may be the reason.

    Raises:
        BundleError: as the runtime said, with the versions.
        CompilerError: so too.
        MissingDependencyError: the runtime is not installed.
    """
    try:
        yield
    except (BundleError, CompilerError) as error:
        present = {name: versions for name, versions in _changed(manifest).items() if versions[1] is not None}
        if not present:
            raise
        hint = " or ".join(filter(None, (f"pip install {_pins(present)}", error.hint)))
        raise type(error)(f"{error.message} ({_told(present)})", hint) from error
    except ModuleNotFoundError as error:
        gone = {name: versions for name, versions in _changed(manifest).items() if versions[1] is None}
        missing = {name: gone[name] for name in gone if error.name and name.startswith(error.name)}  # such as onnxruntime-gpu
        if not missing:
            raise
        raise MissingDependencyError(
            f"a bundle of {quoted(manifest.mode)} needs {error.name}, which is not installed", f"pip install {_pins(missing)}"
        ) from error


def _changed(manifest: Manifest) -> Changed:
    both = {name: (made, _version(name)) for name, made in manifest.environment.libraries.items()}
    return {name: (made, here) for name, (made, here) in both.items() if made != here}


def _told(changed: Changed) -> str:
    versions = (f"{name} {made}, here {here or 'none'}" for name, (made, here) in changed.items())
    return f"made with other versions: {'; '.join(versions)}"


def _pins(changed: Changed) -> str:
    """Return what pip takes. A local version, such as 2.13.0+cpu, is known to no index."""
    return " ".join(f"{name}=={made.partition('+')[0]}" for name, (made, _) in changed.items())


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
