"""Finds the data files of a study: in the directory that `AUTOCUT_DATA` names, otherwise in a cache of downloads.

If `AUTOCUT_DATA` is set, nothing is downloaded. A file may lie in that directory itself or in the folder of its data set.
Downloads go to ``$XDG_CACHE_HOME/autocut/data`` (default ``~/.cache``). A download gets its final name in one step, after its
checksum is verified, so two workers may download the same file.
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

from autocut.errors import TaskError, quoted

TIMEOUT_S = 60


@dataclass(frozen=True)
class DataFile:
    """One published file: the folder of its data set, its name, its URL and its checksum.

    If it is a member of a tar archive (`in_archive`), URL and checksum are those of the archive.
    """

    folder: str
    name: str
    url: str
    sha256: str
    in_archive: bool = False

    def find(self) -> Path | None:
        """Path of the file, or None if it is not on this machine. Downloads nothing."""
        named = os.environ.get("AUTOCUT_DATA")
        roots = [Path(named).expanduser()] if named else [cache_folder()]
        for path in (place / self.name for root in roots for place in (root / self.folder, root)):
            if path.is_file():
                return path
        return None

    def fetch(self) -> Path:
        """Path of the file. It is downloaded if it is not on this machine and `AUTOCUT_DATA` is not set.

        Raises:
            TaskError: the file is not in `AUTOCUT_DATA`, cannot be downloaded, or has another checksum.
        """
        if (path := self.find()) is not None:
            return path
        if named := os.environ.get("AUTOCUT_DATA"):
            raise TaskError(
                f"AUTOCUT_DATA must hold {self.folder}/{self.name}, got no such file in {quoted(named)}",
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
    """Folder of the downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "autocut" / "data"


@contextmanager
def _downloaded(url: str, sha256: str, folder: Path) -> Iterator[Path]:
    """Yield a temporary file in `folder` with the verified content of `url`. It is removed afterwards."""
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
    """Write the plain files of the archive into `folder`, without the archive's own folders."""
    with tarfile.open(archive) as members:
        for member in members:
            content = members.extractfile(member) if member.isfile() else None
            if content is not None:
                partial = archive.with_name(Path(member.name).name)
                with partial.open("wb") as out:
                    shutil.copyfileobj(content, out)
                partial.replace(folder / partial.name)
