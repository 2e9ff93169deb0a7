"""What all processes of one user share on one machine."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from autocut.errors import InputError, quoted

_NOT_WRITABLE = (errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS)
LOCK_DIR = "AUTOCUT_LOCK_DIR"
_USUAL_PLACE = Path("/tmp")  # a folder of the user's own in it

_NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "gpfs", "glusterfs")
_CONTAINER_MARKS = (".dockerenv", "run/.containerenv")


def node_folder() -> Path:
    """Return the folder, on this machine's own disk, of what all searches of this user on this machine share, such as locks.

    It is the one that AUTOCUT_LOCK_DIR names, else `/tmp/autocut-UID`, whatever TMPDIR says: two searches with different temporary
    folders still run on the same cores. Containers have a `/tmp` of their own. Where several of one host run searches, mount one
    folder of the host into each, and name it by AUTOCUT_LOCK_DIR.

    Raises:
        InputError: the folder cannot be made, is not named from the root, or does not belong to this user.
    """
    if folder := named_path(LOCK_DIR):
        rule = f"{LOCK_DIR} must be a folder that can be written, got {quoted(str(folder))}"
        return _made(folder, 0o1777, rule, "choose another folder")
    place = _USUAL_PLACE if os.access(_USUAL_PLACE, os.W_OK) else Path(tempfile.gettempdir())
    folder = _made(
        place / f"autocut-{os.getuid()}", 0o700, f"locks must have a folder in {place}", f"name another one: {LOCK_DIR}=FOLDER"
    )
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"lock folder {folder} must belong to this user", f"name another one: {LOCK_DIR}=FOLDER")
    return folder


def named_path(variable: str) -> Path | None:
    """Return the path that a variable of the environment names; None where it is not set.

    Raises:
        InputError: it is a relative path. Processes with other working folders would find another file there.
    """
    if not (named := os.environ.get(variable)):
        return None
    with contextlib.suppress(RuntimeError):  # a user that this machine does not know
        if (path := Path(named).expanduser()).is_absolute():
            return path
    raise InputError(
        f"{variable} must be a path from the root, which is the same for every process, got {quoted(named)}",
        f"{variable}=/path/from/the/root",
    )


def _made(folder: Path, mode: int, rule: str, hint: str) -> Path:
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
    except OSError as error:
        raise InputError(f"{rule}: {error.strerror}", hint) from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"{rule}: it is read-only", hint)
    return folder


def open_lock_file(path: Path) -> int:
    """Open a lock file and return its descriptor; make the file if it is missing. All who may write into its folder may lock it.

    A link is refused: another user of a shared folder could let it lead to a file of this user, and all could then write to that.

    Raises:
        InputError: it is a link, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise  # such as too many open files: that says nothing of this one
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        message = f"lock file must be a plain file that can be written, got {quoted(str(path))}: {reason}"
        raise InputError(message, f"name another folder: {LOCK_DIR}=FOLDER") from error
    found = os.fstat(descriptor)
    if LOCK_DIR in os.environ and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) != 0o666:  # the umask has its say
        os.fchmod(descriptor, 0o666)
    return descriptor


def lock_reach(root: Path = Path("/")) -> str | None:
    """Say where the locks of this machine do not reach, or reach too far; None where every search on it is seen.

    Args:
        root: Of the file system whose `/proc/mounts` and marks of containers are read.
    """
    folder = node_folder()
    if kind := network_disk(folder, root):
        return (
            f"locks: {folder} is on a network disk ({kind}), where they may not hold; {LOCK_DIR}=FOLDER names one of this machine"
        )
    if LOCK_DIR not in os.environ and any((root / mark).exists() for mark in _CONTAINER_MARKS):
        return f"locks: {folder} is of this container alone; {LOCK_DIR}=FOLDER names one that other containers of this host share"
    return None


def network_disk(folder: Path, root: Path = Path("/")) -> str:
    """Return the kind of the network disk that `folder` is on; empty where it is on a disk of this machine. `root` as above."""
    kind = _file_system(folder, root / "proc/mounts")
    return kind if kind in _NETWORK_DISKS or kind.startswith("fuse.") else ""


def _file_system(folder: Path, mounts: Path) -> str:
    """Return the kind of the file system that `folder` is on, empty where the kernel does not tell."""
    try:
        rows = [line.split()[1:3] for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    around = [(len(place), kind) for place, kind in rows if folder.resolve().is_relative_to(place)]
    return max(around, default=(0, ""))[1]
