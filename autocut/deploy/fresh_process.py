"""A process without the user's code, in which bundles are verified: it imports first, and looks at a bundle when it is told to.

Importing takes longer than looking, and may be done while others work; looking times, and wants the machine for itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import autocut
from autocut.registry import plug_in_folders

_COMMAND = (sys.executable, "-P", "-m", "autocut.deploy.verify_process")
_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CXX",
    "CC",
)


class FreshProcess:
    """Runs from `start` to the end of `with`, as does all that it has started.

    Its working folder is empty and -P keeps it off `sys.path`: nothing of the user's can be imported by accident. The compiler
    finds an empty cache, as at the first start on a server: what it takes there is the cold start. It leads a process group of its
    own, so that its end is that of its compilers too, and dies with this process.

    Args:
        threads: Threads of a served model.
        command: What starts it; it is told the process that it is to die with.
    """

    def __init__(self, threads: int = 1, command: Sequence[str] = _COMMAND) -> None:
        self._threads = threads
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: int | None = None

    def __enter__(self) -> FreshProcess:
        """Make its folder."""
        self._home = tempfile.TemporaryDirectory(prefix="autocut-verify-", ignore_cleanup_errors=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
        if self._ready is not None:
            os.close(self._ready)
        self._home.cleanup()

    def start(self) -> None:
        """Start the process, which begins to import."""
        home = Path(self._home.name)
        (working := home / "empty").mkdir()
        environment = clean_environment(self._threads) | {"TORCHINDUCTOR_CACHE_DIR": str(home / "inductor")}
        # A pipe of its own: libraries that are imported may print to stdout.
        self._ready, ready = os.pipe()
        try:
            with self._words.open("wb") as words:
                self._process = subprocess.Popen(
                    [*self._command, "--parent", str(os.getpid()), "--ready", str(ready)], cwd=working, env=environment,
                    pass_fds=(ready,), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words, start_new_session=True,
                )  # fmt: skip
        finally:
            os.close(ready)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the process has imported everything, is gone, or the time is up: `ask` tells which."""
        if self._ready is not None:
            select.select([self._ready], [], [], max(0.0, timeout_s))

    def ask(self, question: Mapping[str, object], timeout_s: float) -> str | None:
        """Have the process, started here if it is not yet, answer `question`, once, and wait until it ends.

        One that does not end within `timeout_s` is ended, with all that it has started.

        Returns:
            None where it has ended by itself and well; else how it ended, for a person.
        """
        if self._process is None:
            self.start()
        process = self._process
        if process is None or process.stdin is None:
            raise RuntimeError("a fresh process has no stdin")
        with contextlib.suppress(BrokenPipeError):  # it is gone, which its end tells
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.close()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"no answer within {timeout_s:g} s"
        if process.returncode < 0:
            return f"killed by {signal.Signals(-process.returncode).name}"
        return f"exit code {process.returncode}: {self._last_words}" if process.returncode else None

    @property
    def _words(self) -> Path:
        return Path(self._home.name) / "stderr"

    @property
    def _last_words(self) -> str:
        said = self._words.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(said) if line.strip()), "no message")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def clean_environment(threads: int = 1) -> dict[str, str]:
    """Environment of the fresh process: what a program needs to start, nothing that leads to the user's code.

    Thread pools get the claimed size from the start: threads that wait for one another on a busy machine cost a hundredfold.
    """
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    installed = {str(Path(path).resolve()) for path in (*site.getsitepackages(), site.getusersitepackages())}
    needed = (str(Path(autocut.__file__).resolve().parents[1]), *plug_in_folders())
    if elsewhere := [folder for folder in dict.fromkeys(needed) if folder not in installed]:
        environment["PYTHONPATH"] = os.pathsep.join(elsewhere)
    return environment | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": str(threads)}
