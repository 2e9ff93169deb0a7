"""Content-addressed outputs of stages: the reason why no stage is ever done twice.

An entry is a folder named by its key. It is written elsewhere and renamed into place, so that a reader sees all of it or nothing,
even after `kill -9`. Its `entry.json` holds the checksum of every file in `output/`. An entry that does not match its checksums is
dropped and made again. The record is signed (`signing`). One that was not signed with this user's key counts as missing, and
nothing of it is read: outputs hold pickles and machine code. Workers share one cache: each key has a lock, so no two workers make
the same entry, and the kernel releases it when its holder dies. Above `limit_bytes` the cache evicts what was unused for longest:
entries, and checkpoints of trainings that did not go on.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autocut.errors import InputError
from autocut.pipeline.full_disk import told_whose_disk_is_full
from autocut.pipeline.signing import Signer, own_secret

_KEY_LENGTH = 64
DEFAULT_LIMIT_BYTES = 10 * 2**30
IN_USE_S = 1800.0
"""An entry that was read within this time may still be in use. It is not evicted, even if the cache is above its limit."""
_RECORD = "entry.json"
_OUTPUT = "output"
_SIGNATURE = "signature"
_EVICTING_SHARE = 0.02
"""The share of time spent on looking for what to evict. Between two looks the cache may grow beyond its limit."""
_LONGEST_PAUSE_S = 60.0
_LITTLE_WORK_BYTES, _FEW_ENTRIES = 2**20, 300
"""Reading this much, or listing this many entries, takes a millisecond or two: it disturbs nobody's timing."""


_FileStates = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Entry:
    """One stage output on disk. `seconds` is what making it took, also where it was `cached`."""

    key: str
    stage: str
    method: str
    seconds: float
    folder: Path
    cached: bool
    facts: Mapping[str, Any]


def stage_key(parent: str, stage: str, settings: Mapping[str, Any], **context: Any) -> str:
    """Return the key of a stage: SHA-256 of its parent's key, its settings and the context that decides its result.

    `context` holds method versions, task fingerprint, library versions and seed; all of it must be JSON.
    """
    document = {"parent": parent, "stage": stage, "settings": dict(settings), "context": context}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class StageCache:
    """Stage outputs under `folder`, shared by every process that opens the same folder.

    `waiting()` is entered while this process waits for another one that makes the same entry. `secret` signs entries; None: this
    user's own key.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        in_use_s: float = IN_USE_S,
        waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        secret: bytes | None = None,
    ) -> None:
        self.folder = folder
        self._signer = Signer(secret or own_secret())
        self._gate: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        self._waiting = waiting
        self._whole: dict[str, _FileStates] = {}
        self.waited_s = 0.0
        """Seconds that this process has waited while another one made the same entry."""
        self.limit_bytes = limit_bytes
        self.in_use_s = in_use_s
        for name in ("entries", "building", "checkpoints", "locks"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def gated(self, gate: Callable[[], AbstractContextManager[object]]) -> StageCache:
        """Return the same cache, which enters `gate()` for work that takes a processor: checksums and eviction.

        What takes milliseconds goes on without it. Where other processes time one after the other, entering may take a minute.
        """
        cache = copy.copy(self)
        cache._gate = gate
        return cache

    def find(self, key: str) -> Entry | None:
        """Return the entry of `key` if it is there and whole; a damaged one is dropped."""
        folder = self.folder / "entries" / key
        try:
            record = json.loads((folder / _RECORD).read_text())
            if not self._is_signed(key, record):
                return None
            whole = self._is_whole(key, folder / _OUTPUT, record["files"])
        except FileNotFoundError:
            return None  # not there, or another process evicts or replaces it now: there is nothing to remove
        except (ValueError, KeyError):
            whole = False
        if not whole:
            with self._try_locked(key) as free:
                if free:
                    shutil.rmtree(folder, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / _RECORD)
        return Entry(
            key, record["stage"], record["method"], record["seconds"], folder / _OUTPUT, cached=True, facts=record["facts"]
        )

    def get_or_make(
        self,
        key: str,
        stage: str,
        method: str,
        make: Callable[[Path], Mapping[str, Any] | None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> Entry:
        """Return the entry of `key`; where there is none, `make(folder)` writes its files and returns facts about them.

        `clock` counts the seconds that are charged to the stage, so that a caller can leave out the time spent waiting.
        If `make` raises, nothing is left behind.

        Raises:
            InputError: the cache's disk is full.
            DiskFullError: another disk is full.
        """
        if found := self.find(key):
            return found
        with self._locked(key):
            if found := self.find(key):
                return found
            for left in (self.folder / "building").glob(f"{key}-*"):
                _remove(left)  # of a worker that was killed: nobody else makes this key now
            building = self.folder / "building" / f"{key}-{uuid.uuid4().hex}"
            (building / _OUTPUT).mkdir(parents=True)
            try:
                with told_whose_disk_is_full(self.folder):
                    started = clock()
                    facts = dict(make(building / _OUTPUT) or {})
                    seconds = clock() - started
                    with self._gate() if _bytes_in(building) > _LITTLE_WORK_BYTES else contextlib.nullcontext():
                        self._publish(building, key, stage, method, seconds, facts)
            finally:
                shutil.rmtree(building, ignore_errors=True)
        self._evict_now_and_then()
        entry = self.find(key)
        if entry is None:
            raise InputError(
                f"stage cache entry {key[:12]} must be readable after it was written, but is damaged", "check the disk"
            )
        return replace(entry, cached=False)

    def checkpoint(self, key: str) -> Path:
        """Return the file where the stage `key` may keep what it has done so far, while it has no entry."""
        return self.folder / "checkpoints" / f"{key}.pt"

    def evict(self) -> list[str]:
        """Remove entries and checkpoints, the longest unused first, until the cache is within its limit. Return their keys."""
        entries = sorted(self._entries())
        excess = sum(size for _, size, _ in entries) - self.limit_bytes
        removed = []
        for used, size, path in entries[:-1]:  # the newest stays: its maker is about to read it
            if excess <= 0 or time.time() - used < self.in_use_s:
                break
            with self._try_locked(path.stem) as free:
                if free and _last_use(path) == used:  # it was not found since it was listed
                    _remove(path)
                    removed.append(path.stem)
                    excess -= size
        return removed

    def _evict_now_and_then(self) -> None:
        """Evict, unless a process has just done so: listing thousands of entries after every stage takes longer than stages."""
        due_file = self.folder / "evict-next"
        try:
            due = float(due_file.read_text())
        except (OSError, ValueError):
            due = 0.0
        now = time.time()
        if now < due <= now + _LONGEST_PAUSE_S:
            return
        has_many = sum(1 for _ in (self.folder / "entries").iterdir()) > _FEW_ENTRIES
        with self._gate() if has_many else contextlib.nullcontext():
            started = time.perf_counter()
            self.evict()
            pause_s = min(_LONGEST_PAUSE_S, (time.perf_counter() - started) / _EVICTING_SHARE)
        with contextlib.suppress(OSError):  # a full disk is reported where a stage is made
            due_file.write_text(str(time.time() + pause_s))

    def sweep(self) -> None:
        """Remove what killed processes left half made. What a process makes right now stays."""
        left = [*(self.folder / "building").iterdir(), *(self.folder / "checkpoints").glob("*.tmp")]
        for path in left:
            with self._try_locked(path.name[:_KEY_LENGTH]) as free:
                if free:
                    _remove(path)

    def unsigned(self) -> list[str]:
        """Return the keys of the entries that were not signed with this key: they count as missing."""
        return [key for key, record in self._records() if not self._is_signed(key, record)]

    def adopt(self) -> int:
        """Sign every entry that is not signed. Only for a folder that the user trusts: outputs can run code when they are read."""
        adopted = [(key, record) for key, record in self._records() if not self._is_signed(key, record)]
        for key, record in adopted:
            draft = self.folder / "building" / f"{key}-{uuid.uuid4().hex}"
            self._write(draft, key, {name: value for name, value in record.items() if name != _SIGNATURE})
            draft.replace(self.folder / "entries" / key / _RECORD)
        return len(adopted)

    def _records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for folder in (self.folder / "entries").iterdir():
            with contextlib.suppress(OSError, ValueError):  # damaged, or evicted right now
                record = json.loads((folder / _RECORD).read_text())
                if isinstance(record, dict):
                    yield folder.name, record

    def _is_signed(self, key: str, record: dict[str, Any]) -> bool:
        signed = {name: value for name, value in record.items() if name != _SIGNATURE}
        return self._signer.has_signed(record.get(_SIGNATURE), key, signed)

    def _write(self, path: Path, key: str, record: dict[str, Any]) -> None:
        record = json.loads(json.dumps(record))  # as it will be read: JSON has no tuples, and no numbers as keys
        with path.open("w") as stream:
            json.dump(record | {_SIGNATURE: self._signer.sign(key, record)}, stream)
            stream.flush()
            os.fsync(stream.fileno())

    def _is_whole(self, key: str, output: Path, digests: Mapping[str, str]) -> bool:
        """Whether every file has its checksum. A file that has not changed since this process read it is not read again."""
        state = tuple(_file_state(output / name) for name in digests)
        if self._whole.get(key) == state:
            return True
        with self._gate() if _bytes_in(output) > _LITTLE_WORK_BYTES else contextlib.nullcontext():
            whole = all(_checksum(output / name) == digest for name, digest in digests.items())
        if whole:
            self._whole[key] = state
        return whole

    def _publish(self, building: Path, key: str, stage: str, method: str, seconds: float, facts: dict[str, Any]) -> None:
        output = building / _OUTPUT
        paths = sorted(path for path in output.rglob("*") if path.is_file())
        files = {path.relative_to(output).as_posix(): _checksum(path) for path in paths}
        record = {"stage": stage, "method": method, "seconds": seconds, "facts": facts, "files": files}
        self._write(building / _RECORD, key, record)
        target = self.folder / "entries" / key
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
        self._whole[key] = tuple(_file_state(target / _OUTPUT / name) for name in files)

    def _entries(self) -> list[tuple[float, int, Path]]:
        entries = []
        for path in (*(self.folder / "entries").iterdir(), *(self.folder / "checkpoints").glob("*.pt")):
            with contextlib.suppress(OSError):
                size = path.stat().st_size if path.is_file() else _bytes_in(path)
                entries.append((_last_use(path), size, path))
        return entries

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        with (self.folder / "locks" / key).open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                started = time.perf_counter()
                with self._waiting():
                    fcntl.flock(stream, fcntl.LOCK_EX)
                self.waited_s += time.perf_counter() - started
            yield

    @contextlib.contextmanager
    def _try_locked(self, key: str) -> Iterator[bool]:
        with (self.folder / "locks" / key).open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _last_use(path: Path) -> float:
    """Return when an entry was last found, or a checkpoint last written."""
    try:
        return (path / _RECORD if path.is_dir() else path).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _file_state(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
