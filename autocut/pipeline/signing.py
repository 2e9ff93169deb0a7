"""Signs what a study folder holds that can run code: stage outputs, which are pickled models and machine code, and the task's path.

The key lies outside of every study folder, so a folder that a stranger has written or changed has no valid signature: its stages
count as missing, and nothing in them is read. It is a secret of one user. People who share studies can share the key.

    ~/.config/autocut/stage.key    32 random bytes, made on first use, for this user alone; AUTOCUT_KEY_FILE names another file

References:
    RFC 2104 (HMAC)
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocut.errors import InputError, StudyError
from autocut.node import named_path

KEY_FILE = "AUTOCUT_KEY_FILE"
_BYTES = 32


class Signer:
    """Signs JSON documents with `secret`."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, *document: Any) -> str:
        """Return the signature of `document`, as hexadecimal digits."""
        return hmac.new(self._secret, json.dumps(document, sort_keys=True).encode(), hashlib.sha256).hexdigest()

    def has_signed(self, signature: object, *document: Any) -> bool:
        """Whether `signature` is that of `document` by this key."""
        return isinstance(signature, str) and hmac.compare_digest(signature.encode(), self.sign(*document).encode())


def key_file() -> Path:
    """Return the path of this user's key.

    Raises:
        InputError: the user has no home, or names the file by a relative path.
    """
    if named := named_path(KEY_FILE):
        return named
    try:
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError as error:  # a container may run as a user that it does not know
        raise InputError("this user must have a home for its key file, but has none", f"name a file: {KEY_FILE}=FILE") from error
    return Path(home) / "autocut" / "stage.key"


def own_secret() -> bytes:
    """Return this user's key, made where there is none.

    Raises:
        InputError: the file cannot be read or made, or is no key.
    """
    return _secret(key_file())


def sign_task(path: str | None, fingerprint: str) -> str:
    """Sign the file that a study names as its task: `autocut export` runs it."""
    return Signer(own_secret()).sign("task", path, fingerprint)


def refuse_foreign_task(facts: Mapping[str, Any], fingerprint: str, folder: Path) -> None:
    """Refuse to run the task's file of a study that was not searched with this user's key: the study may name any file.

    Raises:
        StudyError: the path of the task is not signed.
    """
    path = facts["task_path"]
    if path is not None and not Signer(own_secret()).has_signed(facts.get("task_signature"), "task", path, fingerprint):
        raise StudyError(
            f"study {folder} names the task {path}, which was not signed with {key_file()}",
            "if that file is yours, run the study's search command once more: a spent budget is enough",
        )


@functools.cache
def _secret(path: Path) -> bytes:
    hint = f"name another file: {KEY_FILE}=FILE"
    try:
        if not path.exists():
            _make(path)
        found = path.read_bytes()
    except OSError as error:
        raise InputError(f"key file {path} must be readable, or writable where it is missing: {error.strerror}", hint) from error
    if len(found) < _BYTES:
        raise InputError(f"key file {path} must hold at least {_BYTES} bytes, got {len(found)}", f"remove it, or {hint}")
    return found


def _make(path: Path) -> None:
    """Make the key appear whole, and only once: two searches that begin at the same moment get the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
