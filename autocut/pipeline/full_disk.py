"""Whose matter a full disk is: without room for its stages a search ends, without room elsewhere a recipe fails.

Libraries write where they like, most of all into the folder for temporary files. They tell a full disk by an `OSError`, with or
without the file's name, or by an error of their own.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autocut.errors import AutocutError, CompilerError, DiskFullError, InputError, shortened

_LITTLE_BYTES = 8 * 2**20
"""A disk with less room counts as full: what could not be written whole is often removed again."""
_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded")
_SHARED_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def told_whose_disk_is_full(stages: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that names the folder without room. Other errors pass unchanged.

    Raises:
        InputError: there is no room in the folder `stages`. No other recipe would have room either.
        DiskFullError: there is no room elsewhere.
    """
    try:
        yield
    except (InputError, DiskFullError):
        raise
    except Exception as error:
        if (told := _full_disk(error, stages)) is not None:
            raise told from error
        raise


def disk_full(folder: Path) -> InputError:
    """Build the error for a disk without room under `folder`, where the stages are."""
    return InputError(
        f"disk under {folder} must have room for stage outputs, but is full", "free some space and run the same command again"
    )


def _full_disk(error: Exception, stages: Path) -> AutocutError | None:
    """Return the error for the disk that is full; None if `error` has another reason."""
    chain = _with_causes(error)
    is_told = any(_tells(one) for one in chain)
    named = next((place for one in chain if (place := _place_of(one)) is not None), None)
    if _is_full(stages) or (named is not None and named.stat().st_dev == stages.stat().st_dev):
        return disk_full(stages)
    if isinstance(error, AutocutError) and not isinstance(error, CompilerError) and not is_told:
        return None  # its reason is known
    temporary = Path(tempfile.gettempdir())
    # A library's own error may hide that the folder for temporary files is full.
    full = [named] if named else [place for place in (temporary, *([_SHARED_MEMORY] if is_told else [])) if _is_full(place)]
    if not full and not is_told:
        return None
    where = f"disk under {full[0]}" if full else f"disk for temporary files ({temporary}) or another one"
    what = shortened(f"{type(error).__name__}: {error}".partition("\n")[0])
    return DiskFullError(f"{where} must have room for what libraries write, but is full ({what})")


def _with_causes(error: BaseException) -> list[BaseException]:
    """Return the error, and what it came from."""
    before = error.__cause__ or error.__context__
    return [error, *(_with_causes(before) if before is not None else ())]


def _tells(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in _NUMBERS) or any(words in str(error) for words in _WORDS)


def _place_of(error: BaseException) -> Path | None:
    """Return the folder that is there of the file that the error of a full disk names."""
    if not isinstance(error, OSError) or error.errno not in _NUMBERS or not isinstance(error.filename, str):
        return None
    return next((folder for folder in Path(error.filename).absolute().parents if folder.is_dir()), None)


def _is_full(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free < _LITTLE_BYTES
