"""What is seen of a search from outside: its processes, its locks and its files. Linux alone: it reads /proc."""

from __future__ import annotations

import hashlib
from pathlib import Path

_FORK_SERVER = b"autocut.execution.fork_server"


def targets_of(target: str, driver: int, pids: list[int]) -> list[int]:
    """Return the processes among `pids` that `target` names; the driver counts too."""
    servers = [pid for pid in pids if _FORK_SERVER in command_of(pid) and _parent(pid) == driver]
    match target:
        case "driver":
            return [driver]
        case "fork server":
            return servers[:1]
        case "worker":
            return [pid for pid in pids if _parent(pid) in servers][-1:]
        case "relay":
            return [pid for pid in pids if command_of(pid).startswith(b"ray::")][-1:]
        case "group":
            return [driver, *(pid for pid in pids if _group(pid) == driver)]
        case _:
            return [driver, *pids]


def descendants(root: int) -> list[int]:
    """Return all processes below `root`."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (parent := _parent(int(path.name))) is not None:
            children.setdefault(parent, []).append(int(path.name))
    found, new = [], [root]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found += new
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int | None:
    return int(stat[1]) if (stat := _stat(pid)) else None


def _group(pid: int) -> int | None:
    return int(stat[2]) if (stat := _stat(pid)) else None


def command_of(pid: int) -> bytes:
    """Return the command line of a process, empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def began_at(pid: int) -> str:
    """Return when the process began, in ticks; empty where it is gone. Another process of the same number began later."""
    return stat[19] if (stat := _stat(pid)) and stat[0] != "Z" else ""


def changes(path: Path) -> int:
    """Return a number that changes when `path` is written."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def is_quiet(study: Path) -> bool:
    """Whether a process measures: it holds the quiet lock for itself."""
    lock = study.parent / "locks" / "quiet.lock"
    try:
        inode = f":{lock.stat().st_ino} "
    except OSError:
        return False
    return any("WRITE" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
