"""Memory that a timed model has used once stays with its process, as in a server that has run for a while.

By default, glibc gives blocks of more than 32 MB back to the kernel whenever they are freed. The next call gets fresh pages, and
the kernel fills each with zeros at its first use. What that takes differs from minute to minute and from process to process: the
untouched ResNet-50 at batch 32 took 0.83 to 1.7 s within one search, so its speed-ups ranked wrongly (`studies/timing/memory.py`).
Here every timing keeps the memory, and so do a bundle's `serve.py` and `autocut.load`.

`keep_memory` is also copied into `serve.py`, so it needs nothing but Python.

References:
    man 3 mallopt
"""

from __future__ import annotations

KEPT, GIVEN_BACK = "kept", "given back"
"""What happens to memory that a timed model frees, a condition of a study. Before December 2026 it was given back."""
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "9223372036854775807"}
"""What does the same for a program in another language: variables that glibc reads when the program starts."""


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, and return whether its C library can: glibc can, others do not give it back.

    Blocks come from one heap for all threads: a heap of its own, which each thread has otherwise, holds 64 MB at most.
    """
    import ctypes

    arena_max, mmap_max, trim_threshold = -8, -4, -1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    options = {arena_max: 1, mmap_max: 0, trim_threshold: -1}  # the last one: never
    taken = [bool(mallopt(option, value)) for option, value in options.items()]
    return all(taken)
