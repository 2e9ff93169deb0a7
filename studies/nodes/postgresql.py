"""A PostgreSQL server for a test: Debian's package, in a folder of its own, started by an unprivileged user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where they are missing."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Server:
    """A PostgreSQL server in `folder`."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        """What `--storage` takes."""
        return f"postgresql+psycopg://autocut@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Make the database, and start the server."""
        shutil.chown(self.folder, "nobody")
        self.run("initdb", "-D", str(self.folder / "data"), "-U", "autocut", "--auth=trust", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start the server, and wait for it."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def kill(self) -> None:
        """End it as a crash does: connections are cut, and the next start recovers."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def ask(self, query: str) -> str:
        """Return what the server answers; nothing if it is away, or has no such table."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "autocut", "-d", "postgres"]
        asked = subprocess.run([self.programs / "psql", *where, "-tAc", query], capture_output=True, text=True, check=False)
        return asked.stdout.strip()

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL, which refuses to be root."""
        user: dict[str, Any] = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        if os.getuid() != 0:
            user = {}
        subprocess.run([self.programs / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/", **user)


@contextlib.contextmanager
def postgresql() -> Iterator[Server]:
    """Start a server, and end it with the block. `binaries` must have found its programs.

    Raises:
        FileNotFoundError: it has not.
    """
    programs = binaries()
    if programs is None:
        raise FileNotFoundError("PostgreSQL is missing: apt-get install postgresql")
    # Its own folder below /tmp: another user runs it, who cannot enter that of a test, and the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        server = Server(Path(folder), programs)
        server.make()
        try:
            yield server
        finally:
            server.kill()
