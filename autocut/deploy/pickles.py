"""Keep pickles out of bundles: loading a pickle runs any code that its author wrote.

This module examines the files of every format. A loader that could unpickle refuses pickles too (`autocut.stages.archive`). Neither
makes a bundle harmless: an ahead-of-time package is machine code, and a graph may call any operator. Load only bundles from people
you trust.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import IO

from autocut.errors import BundleError, quoted

_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".joblib", ".dill", ".ckpt"})
_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1))
_ARCHIVE = b"PK"
_LITTLE_BYTES, _MOST_GROWTH = 64 * 2**20, 50
"""torch compresses nothing in its archives. What unpacks to more than so many times its size would keep a reader busy for hours."""
_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError)
_HINT = "save the model without tensor subclasses, custom objects or sample inputs, then export it again"


def refuse_pickles(folder: Path) -> None:
    """Refuse every file below `folder`, and every record in an archive there, that is a pickle by its name or by its bytes.

    Raises:
        BundleError: there is a pickle, and the message names the file or the record; or an archive cannot be read to its end.
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            if _is_pickle(path.name, path.stat().st_size, stream):
                raise BundleError(f"bundle must hold no pickle, got {quoted(path.name)}", _HINT)
        if zipfile.is_zipfile(path):
            try:
                _refuse_in_archive(path)
            except _UNREADABLE as error:
                raise BundleError(f"{path.name} must be a whole archive without a password, got: {error}", _HINT) from error


def _refuse_in_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        claimed, size = sum(record.file_size for record in archive.infolist()), path.stat().st_size
        if claimed > max(_LITTLE_BYTES, _MOST_GROWTH * size):
            message = f"{path.name} must unpack to at most {_MOST_GROWTH} times its size, got {claimed} bytes from {size}"
            raise BundleError(message, "get the bundle from somebody you trust; an archive of your own is stored uncompressed")
        for record in archive.infolist():
            _refuse_escape(path, record.orig_filename)
            with archive.open(record) as stream:
                # `torch.save` writes an archive with a pickle in it, so an archive inside an archive is refused too.
                nested = stream.read(2) == _ARCHIVE
                stream.seek(0)
                if nested or _is_pickle(record.filename, record.file_size, stream):
                    raise BundleError(f"{path.name} must hold no pickle, got one in {quoted(record.filename)}", _HINT)


def _refuse_escape(path: Path, name: str) -> None:
    """Refuse a record that leads out of a folder: a loader may unpack the archive. `zipfile` itself hides such names."""
    parts = name.removesuffix("/").replace("\\", "/").split("/")
    if {"", ".", ".."} & set(parts) or ":" in parts[0]:
        raise BundleError(f"{path.name} must unpack into its own folder, got the record {quoted(name)}", _HINT)


def _is_pickle(name: str, size_bytes: int, stream: IO[bytes]) -> bool:
    """Every pickle since protocol 2 starts with PROTO and ends with STOP. Raw weights do both by chance once in four million."""
    if size_bytes == 0:
        return False
    if Path(name).suffix.lower() in _SUFFIXES:
        return True
    start = stream.read(2)
    stream.seek(size_bytes - 1)
    return start in _PROTOCOLS and stream.read(1) == pickle.STOP
