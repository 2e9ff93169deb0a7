"""What a saved model takes: bytes on disk, and time and memory to begin with in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autocut.errors import CompilerError, DeadlineError
from autocut.task.batches import Inputs, to_numpy

_CHUNK_BYTES = 2**20
_ZIP_LEVEL = 6


@dataclass(frozen=True)
class Footprint:
    """A fresh process with one model: milliseconds to load it and answer once, and by how much its peak resident memory grew.

    Starting Python and importing torch are not part of either: they are the same for every model.
    """

    cold_start_ms: float
    peak_memory_bytes: int


def size_of(folder: Path) -> tuple[int, int]:
    """Return the bytes of all files under `folder`, and the bytes that are left of them in a zip archive (deflate, level 6).

    The second number is what a download takes. It is where zeros of unstructured pruning show: they are stored like any other
    number.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files), sum(_deflated_bytes(path) for path in files)


def fresh_process_footprint(folder: Path, mode: str, inputs: Inputs, *, threads: int = 1, timeout_s: float = 120.0) -> Footprint:
    """Load the artifact in `folder` in a process of its own and call it once.

    Args:
        folder: What `autocut.stages.lowering.lower` wrote.
        mode: Compile mode that it was written for.
        inputs: One batch.
        threads: What the process may use.
        timeout_s: When to give up.

    Raises:
        CompilerError: the process ended without an answer; the last line it said is in the message.
        DeadlineError: it took longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="autocut-footprint-") as scratch:
        arrays = Path(scratch) / "inputs.npz"
        np.savez(arrays, **to_numpy(inputs))  # type: ignore[arg-type]  # numpy's stub takes keywords for allow_pickle
        command = [
            sys.executable,
            "-P",
            "-m",
            "autocut.measure.footprint_process",
            str(folder.resolve()),
            mode,
            str(arrays),
            str(threads),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, env=environment, cwd=scratch, check=False
            )
        except subprocess.TimeoutExpired:
            raise DeadlineError(f"loading {mode} in a fresh process must end within {timeout_s:g} s, but did not") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CompilerError(f"a {mode} artifact must load in a fresh process, but: {said}")
    report = json.loads(done.stdout.splitlines()[-1])
    return Footprint(float(report["cold_start_ms"]), int(report["peak_memory_bytes"]))


def _deflated_bytes(path: Path) -> int:
    deflate = zlib.compressobj(_ZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    total = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            total += len(deflate.compress(chunk))
    return total + len(deflate.flush())
