"""A process without the user's code, in which bundles are verified. It imports first and waits for a question.

Its work has three parts. Only the second one needs the machine for itself:

    import     while other processes work
    measure    cold start, memory and latency
    replay     compares outputs and accuracy, while other processes work again
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
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType, TracebackType

import autocut
from autocut.measure import spinning
from autocut.registry import plug_in_folders

_COMMAND = (sys.executable, "-P", "-m", "autocut.deploy.verify_process")
_POLL_S = 0.01
Turn = Callable[[], AbstractContextManager[object]]
"""Enters a side of the quiet lock."""
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
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
)


class FreshProcess:
    """Runs from `start` to the end of `with`, together with all processes that it has started.

    Its working folder is empty and -P keeps that folder off `sys.path`, so it cannot import the user's code by accident. Its
    compiler cache is empty, as at the first start on a server, so that compiling counts as part of the cold start. It leads its own
    process group, so that its compilers end with it. It dies with this process.

    Args:
        threads: Threads of a served model.
        command: Command that starts it. It gets three more arguments: the process to die with, a descriptor that it closes when it
            is ready, and one that it closes when it has measured.
        inherited: Variables of the environment that it gets beside those that a program needs to start.
    """

    def __init__(
        self, threads: int = 1, command: Sequence[str] = _COMMAND, inherited: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._threads = threads
        self._command = tuple(command)
        self._inherited = inherited
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: int | None = None
        self._measured: int | None = None

    def __enter__(self) -> FreshProcess:
        """Make its temporary folder."""
        self._home = tempfile.TemporaryDirectory(prefix="autocut-verify-", ignore_cleanup_errors=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process."""
        self._close()
        self._home.cleanup()

    def start(self) -> None:
        """Start the process. It begins to import."""
        home = Path(self._home.name)
        (working := home / "empty").mkdir(exist_ok=True)
        own = clean_environment(self._threads) | {"TORCHINDUCTOR_CACHE_DIR": str(home / "inductor")}
        environment = {**self._inherited, **own}
        if paths := [found for found in (own.get("PYTHONPATH"), self._inherited.get("PYTHONPATH")) if found]:
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        # Pipes of their own, because imported libraries may print to stdout.
        self._ready, ready = os.pipe()
        self._measured, measured = os.pipe()
        signals = ["--parent", str(os.getpid()), "--ready", str(ready), "--measured", str(measured)]
        try:
            with self._stderr.open("wb") as stderr:
                self._process = subprocess.Popen(
                    [*self._command, *signals], cwd=working, env=environment, pass_fds=(ready, measured), stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
                )  # fmt: skip
        finally:
            os.close(ready)
            os.close(measured)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the process has imported everything, has ended, or the time is up. `ask` reports which."""
        _is_closed(self._ready, timeout_s)

    def ask(
        self,
        question: Mapping[str, object],
        timeout_s: float,
        *,
        alone: Turn = contextlib.nullcontext,
        working: Turn = contextlib.nullcontext,
    ) -> str | None:
        """Send `question` to the process, which is started if necessary, and wait until it ends. It takes one question only.

        If it does not end within `timeout_s`, it is killed with all processes that it has started.

        Args:
            question: JSON.
            timeout_s: Seconds until the end, waiting for the machine included.
            alone: Entered while it measures.
            working: Entered while it imports, and while it replays.

        Returns:
            None if it ended successfully; otherwise how it ended, as a text for a person.
        """
        until = time.monotonic() + timeout_s
        process = self._started(timeout_s, working)
        with alone():
            _tell(process, json.dumps(question))
            has_measured = _is_closed(self._measured, until - time.monotonic())
        try:
            with working() if has_measured else contextlib.nullcontext():
                _tell(process, "replay")
                process.wait(max(0.0, until - time.monotonic()) if has_measured else 0.0)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"no answer within {timeout_s:g} s"
        if process.returncode < 0:
            return f"killed by {signal.Signals(-process.returncode).name}"
        return f"exit code {process.returncode}: {self._last_line}" if process.returncode else None

    def ask_fork(
        self,
        question: Mapping[str, object],
        report: Path,
        timeout_s: float,
        *,
        alone: Turn = contextlib.nullcontext,
        working: Turn = contextlib.nullcontext,
    ) -> str | None:
        """Send a `question` that a fork of the process answers (`answering`), and wait for its `report`. The process stays fresh.

        Args:
            question: JSON.
            report: File of the answer.
            timeout_s: Seconds that the fork may work. Then the process is killed, and the next question starts another one.
            alone: Entered while the fork works.
            working: Entered while the process imports.

        Returns:
            None if the report is there; otherwise the reason, as a text for a person.
        """
        process = self._started(timeout_s, working)
        with alone():
            until = time.monotonic() + timeout_s
            _tell(process, json.dumps({**question, "report": str(report)}))
            while not report.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(_POLL_S)
            if report.exists():
                return None
            ended = process.poll()
            told = f"no answer within {timeout_s:g} s" if ended is None else f"exit code {ended}: {self._last_line}"
            self._close()
            self._process = self._ready = self._measured = None
        return told

    def _started(self, timeout_s: float, working: Turn) -> subprocess.Popen[bytes]:
        """Return the process, which is started if necessary."""
        if self._process is None:
            with working():
                self.start()
                self.wait_until_ready(timeout_s)
        if self._process is None:
            raise RuntimeError("a fresh process has not started")
        return self._process

    def _close(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
        for descriptor in (self._ready, self._measured):
            if descriptor is not None:
                os.close(descriptor)

    @property
    def _stderr(self) -> Path:
        return Path(self._home.name) / "stderr"

    @property
    def _last_line(self) -> str:
        lines = self._stderr.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


def _tell(process: subprocess.Popen[bytes], line: str) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it has ended already; its exit code is reported
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()


def _is_closed(descriptor: int | None, timeout_s: float) -> bool:
    """Wait until the other process has closed its end of `descriptor`, or has ended; return whether it has within the time."""
    return descriptor is not None and bool(select.select([descriptor], [], [], max(0.0, timeout_s))[0])


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def clean_environment(threads: int = 1) -> dict[str, str]:
    """Environment of the fresh process: enough to start a program, nothing that leads to the user's code.

    Thread pools have the claimed size from the start. On a busy machine, threads that wait for one another are a hundred times
    slower.
    """
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    installed = {str(Path(path).resolve()) for path in (*site.getsitepackages(), site.getusersitepackages())}
    needed = (str(Path(autocut.__file__).resolve().parents[1]), *plug_in_folders())
    if elsewhere := [folder for folder in dict.fromkeys(needed) if folder not in installed]:
        environment["PYTHONPATH"] = os.pathsep.join(elsewhere)
    own = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": str(threads)}
    return environment | own | spinning.ENVIRONMENT
