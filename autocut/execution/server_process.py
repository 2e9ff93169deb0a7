"""The driver's side of the fork server: starts its process, knows whether it is ready, restarts it, ends it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

COMMAND = (sys.executable, "-P", "-m", "autocut.execution.fork_server")
_ENVIRONMENT = {
    # ONNX Runtime (1.29 and later) starts a thread that sends telemetry. A fork would lose it, with the files it has open.
    "ORT_DISABLE_TELEMETRY": "1",
    # Inductor (2.13) starts a pool of processes when it is imported where Triton is installed.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    # numpy's and scipy's OpenBLAS start their threads when they are imported. The worker sets how many torch has.
    "OPENBLAS_NUM_THREADS": "1",
    # A fork can use no GPU that was opened before. torchao (0.18) opens one when it is imported, with a thread of CUDA's; asking
    # whether there is any would too.
    "CUDA_VISIBLE_DEVICES": "",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
_END_S = 5.0
UP, READY = b"u", b"r"
"""What the server tells the driver: that it forks, and that it is prepared for all that jobs may need."""


def is_supported() -> bool:
    """Return whether this system can fork workers and end them reliably: Linux since 5.3."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


class ServerProcess:
    """A fork server that listens in `folder`. Only this user may be able to enter it: who can connect can run code.

    The server imports at once what jobs begin with; then it `is_idle`. After `prepare_rest` it imports the rest; then it `is_ready`
    and idle again. The driver keeps the listening socket itself, so callers who connect while the server starts wait for it.

    Args:
        folder: A private folder for the socket and the server's log.
        arguments: Further arguments of the server: the path of the task.
        command: Starts the server.
    """

    def __init__(self, folder: Path, arguments: Sequence[str] = (), command: Sequence[str] = COMMAND) -> None:
        self.address = str(folder / "fork.sock")
        self._log = folder / "fork-server.log"
        self._arguments = tuple(arguments)
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen(64)
        self._said = b""
        self._prepares_rest = False
        self._failed_before = 0

    def __enter__(self) -> ServerProcess:
        """Return self."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the server, and with it every worker."""
        self._listener.close()
        if self._process is not None:
            self._end(self._process)

    @property
    def is_running(self) -> bool:
        """Whether the process is there. Also reads what it has said."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        if process.stdout is not None and select.select([process.stdout], [], [], 0)[0]:
            self._said += os.read(process.stdout.fileno(), 8)
        return True

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it is prepared for everything."""
        return READY in self._said

    @property
    def is_idle(self) -> bool:
        """Whether it only forks, and prepares nothing."""
        return self.is_ready or (UP in self._said and not self._prepares_rest)

    @property
    def how_it_ended(self) -> str | None:
        """How the process ended, for a person; None if it runs or was never started."""
        process = self._process
        if process is None or process.poll() is None:
            return None
        if process.returncode < 0:
            return f"killed by {signal.Signals(-process.returncode).name}"
        said = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"exit code {process.returncode}: {said[-1] if said else 'no message'}"

    @property
    def failed_starts(self) -> int:
        """How many times in a row the process has ended before it was ready."""
        if self.is_ready:
            return 0
        return self._failed_before + (self.how_it_ended is not None)

    def start(self) -> None:
        """Start the process, or start it again."""
        if self._process is not None:
            self._failed_before = self.failed_starts
            self._end(self._process)
        self._said = b""
        listener = self._listener.fileno()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, str(listener), str(os.getpid()), *self._arguments], pass_fds=(listener,), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, env=_environment(), start_new_session=True,
            )  # fmt: skip
        if self._prepares_rest:
            self.prepare_rest()

    def prepare_rest(self) -> None:
        """Have the process prepare for the rest, and so every one that is started later."""
        self._prepares_rest = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait(_END_S)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _environment() -> dict[str, str]:
    """This process's, with its search path: autocut may be importable only because of the folder that it was started in."""
    return {**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
