"""The fresh process of `fresh_process_footprint`.

    python -P -m autocut.measure.footprint_process FOLDER MODE INPUTS.npz THREADS

The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch

from autocut.stages import lowering
from autocut.task.batches import from_numpy


def main(arguments: Sequence[str] | None = None) -> None:
    """Load, call once, report."""
    parser = argparse.ArgumentParser(prog="python -m autocut.measure.footprint_process")
    parser.add_argument("folder", type=Path)
    parser.add_argument("mode")
    parser.add_argument("inputs", type=Path)
    parser.add_argument("threads", type=int)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with np.load(options.inputs, allow_pickle=False) as arrays:
        inputs = from_numpy(dict(arrays))
    forget_peak()
    before_bytes = psutil.Process().memory_info().rss
    started = time.perf_counter()
    lowering.load(options.folder, options.mode, options.threads)(inputs)
    cold_start_ms = (time.perf_counter() - started) * 1e3
    report = {"cold_start_ms": cold_start_ms, "peak_memory_bytes": max(peak_resident_bytes() - before_bytes, 0)}
    sys.stdout.write("\n" + json.dumps(report) + "\n")


def peak_resident_bytes() -> int:
    """Peak resident memory of this process. Not `ru_maxrss`: Linux hands that one down from the parent process."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii", errors="replace"))):
        return int(found[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def forget_peak() -> None:
    """Set the kernel's peak to what is resident now, or importing torch may hide what the model takes.

    References:
        https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # no such file outside Linux, or no permission: the growth is then rather too low


if __name__ == "__main__":
    main()
