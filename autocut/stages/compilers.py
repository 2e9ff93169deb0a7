"""Call compilers: translate their errors, and keep their messages off the user's screen."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from autocut.errors import AutocutError, CompilerError, OutOfMemoryError
from autocut.task.library_noise import quietly as quietly  # every compiler needs both


@contextlib.contextmanager
def translated(compiler: str) -> Iterator[None]:
    """Turn an exception of `compiler` into an error that ends one trial.

    Compilers document no error type of their own and raise many types (AttributeError, AssertionError, RuntimeError). So every
    `Exception` in the block ends the trial with the first line of its message. Errors of autocut itself pass unchanged.

    Raises:
        CompilerError: the compiler refused the model or failed.
        OutOfMemoryError: it ran out of memory.
    """
    try:
        yield
    except AutocutError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"{compiler} needs more memory than this machine has") from error
    except OSError:
        raise  # the disk is full or read-only: not an error of the compiler
    except Exception as error:
        if "not enough memory" in str(error) or "out of memory" in str(error):
            raise OutOfMemoryError(f"{compiler} needs more memory than this machine has: {first_line(error)}") from error
        raise CompilerError(f"{compiler} failed: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Type and first line of an error, cut to 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


@functools.cache
def missing_compiler(*, python_headers: bool) -> str | None:
    """Reason why Inductor cannot compile on this machine, or None.

    Args:
        python_headers: Whether the mode's code is compiled against Python itself, as torch.compile's is.
    """
    from torch._inductor import config

    candidates = config.cpp.cxx if isinstance(config.cpp.cxx, (tuple, list)) else (config.cpp.cxx,)
    names = [name for name in candidates if name]
    if not any(shutil.which(name) for name in names):
        return f"no C++ compiler found ({', '.join(names)}): install g++ (apt-get install g++), or set CXX to one"
    include = Path(sysconfig.get_paths()["include"])
    if python_headers and not (include / "Python.h").exists():
        return f"no Python headers in {include}: install them (apt-get install python3-dev)"
    return None


def use_one_compile_process() -> None:
    """Keep Inductor from starting a pool of compile processes, which would outlive the trial and disturb later timings."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    from torch._inductor import config

    config.compile_threads = 1
