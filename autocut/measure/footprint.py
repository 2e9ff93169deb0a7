"""The footprint of a model: bytes of its files, and the peak resident memory of this process."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import psutil

_CHUNK_BYTES = 2**20
_ZIP_LEVEL = 6


def size_of(folder: Path) -> tuple[int, int]:
    """Return the bytes of all files under `folder`, and their bytes in a zip archive (deflate, level 6).

    The second number is the size of a download. Only there do the zeros of unstructured pruning show: a file stores them like any
    other number.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files), sum(_deflated_bytes(path) for path in files)


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Peak resident memory of this process. Not `ru_maxrss`: on Linux a process inherits that one from its parent."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii", errors="replace"))):
        return int(found[1]) * 1024
    return resident_bytes()


def forget_peak() -> None:
    """Reset the kernel's peak to the memory that is resident now. Otherwise the peak of importing torch may hide a model's.

    References:
        https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # no such file outside Linux, or no permission: the measured growth may then be too small


def _deflated_bytes(path: Path) -> int:
    deflate = zlib.compressobj(_ZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    total = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            total += len(deflate.compress(chunk))
    return total + len(deflate.flush())
