"""Finds a study's data files: in the directory that `AUTOCUT_DATA` names, otherwise in a cache that downloads fill.

`AUTOCUT_DATA` set means that nothing is downloaded. A file may lie in that directory itself or in the folder of its data set.
Downloads go to ``$XDG_CACHE_HOME/autocut/data`` (default ``~/.cache``), are checked against the published checksum before
anyone sees them, and appear under their name at once, so that two workers may download the same file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autocut.errors import TaskError

TIMEOUT_S = 60


@dataclass(frozen=True)
class DataFile:
    """One official file: the folder of its data set, its name, where it is published, and its checksum.

    With `archive_url` in place of a URL of its own, the file is a member of a tar archive, and the checksum is the archive's.
    """

    folder: str
    name: str
    url: str
    sha256: str
    in_archive: bool = False

    def find(self) -> Path | None:
        """Path of the file where it is on this machine, else None. Downloads nothing."""
        named = os.environ.get("AUTOCUT_DATA")
        roots = [Path(named).expanduser()] if named else [cache_folder()]
        for path in (place / self.name for root in roots for place in (root / self.folder, root)):
            if path.is_file():
                return path
        return None

    def fetch(self) -> Path:
        """Path of the file, downloaded where it is not on this machine and `AUTOCUT_DATA` is not set.

        Raises:
            TaskError: it is not in `AUTOCUT_DATA`, cannot be downloaded, or is not the published file.
        """
        if (path := self.find()) is not None:
            return path
        if named := os.environ.get("AUTOCUT_DATA"):
            raise TaskError(
                f"AUTOCUT_DATA must hold {self.folder}/{self.name}, got no such file in {named!r}",
                "unset AUTOCUT_DATA to have it downloaded",
            )
        target = cache_folder() / self.folder / self.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with _downloaded(self.url, self.sha256, target.parent) as file:
            if self.in_archive:
                _extract(file, target.parent)
            else:
                file.replace(target)
        if not target.is_file():
            raise TaskError(f"{self.url} must hold {self.name}, got an archive without it")
        return target


def cache_folder() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "autocut" / "data"


@contextmanager
def _downloaded(url: str, sha256: str, folder: Path) -> Iterator[Path]:
    """Yield a temporary file in `folder` with the checked content of `url`; what is left of it goes away after."""
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
        file = Path(temporary, "content")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, file.open("wb") as out:
                shutil.copyfileobj(answer, out)
        except (urllib.error.URLError, OSError) as error:
            raise TaskError(
                f"{url} must be reachable, got {error}", "download it yourself and name its directory: AUTOCUT_DATA=/path/to/data"
            ) from error
        with file.open("rb") as content:
            got = hashlib.file_digest(content, "sha256").hexdigest()
        if got != sha256:
            raise TaskError(f"{url} must have the SHA-256 {sha256}, got {got}", "try again; the file may have been cut short")
        yield file


def _extract(archive: Path, folder: Path) -> None:
    """Write the archive's plain files into `folder` by their last name; the archive's own folders are left out."""
    with tarfile.open(archive) as members:
        for member in members:
            content = members.extractfile(member) if member.isfile() else None
            if content is not None:
                partial = archive.with_name(Path(member.name).name)
                with partial.open("wb") as out:
                    shutil.copyfileobj(content, out)
                partial.replace(folder / partial.name)
