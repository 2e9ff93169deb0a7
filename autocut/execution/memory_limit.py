"""A limit on the memory of one worker. What asks for more fails by itself, and its recipe is named.

Without a limit the machine runs out of memory, and the kernel kills a process of its choice: perhaps the neighbour, whose recipe
is innocent, or the driver.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from autocut.measure.memory import MachineMemory

_STATUS = Path("/proc/self/status")
_HOPELESS = 1.5
"""Without a limit of the user's own, a worker may ask for this many times the memory that is free when it starts. The kernel counts
what is asked for, and libraries ask for more than they use; beyond this, no machine can give it."""
_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad allocation",
    "std::bad_alloc",
    "Failed to allocate",
)
"""How torch, OpenVINO and ONNX Runtime say on a CPU that an allocation failed: none of them has an error class for it."""


@contextlib.contextmanager
def limited_memory(worker_bytes: int | None) -> Iterator[None]:
    """Limit what this process may ask for from now on; each process that it starts gets the same limit.

    Counted are the private pages that can be written (`RLIMIT_DATA`): heaps and weights, not files that are mapped. Linux only;
    elsewhere nothing is limited.

    Args:
        worker_bytes: Bytes besides those that the process has now. None: so many that the machine surely cannot give more.

    References:
        https://man7.org/linux/man-pages/man2/getrlimit.2.html
    """
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    more = _HOPELESS * MachineMemory().available_bytes() if worker_bytes is None else worker_bytes
    limits = [int(_data_bytes() + more), *(given for given in (soft, hard) if given != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that memory could not be had."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return any(isinstance(one, MemoryError) or any(words in str(one) for words in _MESSAGES) for one in causes)


def _data_bytes() -> int:
    """Bytes of this process that `RLIMIT_DATA` counts."""
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024
