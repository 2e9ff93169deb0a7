"""The footprint of a model: bytes of its files, and the peak resident memory of this process."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import psutil

if TYPE_CHECKING:
    from torch import nn

_CHUNK_BYTES = 2**20
_ZIP_LEVEL = 6
_LARGE_BYTES = 32 * 2**20
"""The compressed size of a larger file is estimated."""
_BLOCKS, _BLOCK_BYTES = 256, 2**16
"""The estimate compresses this many blocks: 16 MiB in all, which takes half a second. A block is twice as long as deflate looks
back, so it compresses nearly as well as within the whole file."""


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of the parameters and buffers of `model`."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def size_bytes(folder: Path) -> int:
    """Return the bytes of all files under `folder`."""
    return sum(path.stat().st_size for path in _files(folder))


def compressed_size_bytes(folder: Path) -> int:
    """Return the bytes of all files under `folder` in a zip archive (deflate, level 6): the size of a download.

    Only here do the zeros of unstructured pruning show: a file stores them like any other number. The number is exact for files up
    to 32 MiB. For a larger file it is an estimate from 256 blocks that lie evenly in the file: compressing 440 MB takes 14 s.
    Measured on files of 64 MiB, 2026-11-29, the estimate differed from the exact number by at most 0.1% for random weights in
    float32, bfloat16 and int8 and for weights of which half or 90% were pruned to zeros, and by 0.4% for 120 small layers of all
    these kinds.
    """
    return sum(_deflated_bytes(path) for path in _files(folder))


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


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _deflated_bytes(path: Path) -> int:
    whole = path.stat().st_size
    with path.open("rb") as stream:
        if whole <= _LARGE_BYTES:
            return _deflated(iter(partial(stream.read, _CHUNK_BYTES), b""))
        return round(_deflated(_blocks(stream, whole)) * whole / (_BLOCKS * _BLOCK_BYTES))


def _deflated(chunks: Iterable[bytes]) -> int:
    deflate = zlib.compressobj(_ZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return sum(len(deflate.compress(chunk)) for chunk in chunks) + len(deflate.flush())


def _blocks(stream: BinaryIO, whole: int) -> Iterator[bytes]:
    """Yield a block from the middle of each of `_BLOCKS` equal parts of `stream`, which has `whole` bytes."""
    part = whole / _BLOCKS
    for index in range(_BLOCKS):
        stream.seek(int(index * part + (part - _BLOCK_BYTES) / 2))
        yield stream.read(_BLOCK_BYTES)
