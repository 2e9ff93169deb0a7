"""Joins a running Ray cluster, with its token where it wants one.

`ray start --head` wants a token of everyone who joins as soon as its user has one (Ray 2.60). Ray looks for that token only where
RAY_AUTH_MODE=token says so. Without it, `ray.init` tries for 20 seconds and then says that there is no cluster; with it, a cluster
that wants no token lets a driver in and cancels its actors. So a process of its own tries first. This can go once Ray asks the
cluster by itself.

The token is found where Ray finds it: in RAY_AUTH_TOKEN, else in the file that RAY_AUTH_TOKEN_PATH names, else in
`~/.ray/auth_token`. Only Ray reads it into a request. It is never printed, stored, or sent elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from autocut.errors import InputError, quoted

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_TRY = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR'); print('joined')"
_REFUSED = re.compile(r"InvalidAuthToken|Unauthenticated")
"""What Ray's C++ code prints to stderr when a cluster refuses a token, or the lack of one (2.60)."""
_CONNECT_S = 5.0
_TRY_S = 90.0
_HINT = "start one with: ray start --head   |   see which run: ray status"


def prepare_to_join(address: str) -> None:
    """Find out whether the cluster at `address` lets this user in, and set RAY_AUTH_MODE for this process where it wants a token.

    Raises:
        InputError: there is no cluster, it runs another Ray or Python, or the token that it wants is missing or another one.
    """
    _require_listener(address)
    mode = os.environ.get(MODE)
    if mode is not None and mode.lower() == "token":
        _require_token(address)
    said = _try_to_join(address)
    if said is None:
        return
    if not _REFUSED.search(said):
        raise InputError(f"--ray-address must be a running Ray cluster, got {quoted(address)}: {_reason(said)}", _HINT)
    if mode is None:
        _require_token(address)
        _use_token()
        said = _try_to_join(address)
        if said is None:
            return
    elif mode.lower() != "token":
        raise InputError(
            f"the Ray cluster {address} wants a token, but {MODE} is {quoted(mode)}", f"set it: {MODE}=token, or unset it"
        )
    if not _REFUSED.search(said):
        raise InputError(f"--ray-address must be a running Ray cluster, got {quoted(address)}: {_reason(said)}", _HINT)
    raise InputError(
        f"the Ray cluster {address} must be given its own token, but the one in {token_place()} is another",
        f"on the cluster's head: ray get-auth-token; write what it prints into a file here, and name it: {TOKEN_PATH}=FILE",
    )


def token_place(environment: Mapping[str, str] | None = None, home: Path | None = None) -> str | None:
    """Return where Ray finds a token: the name of a variable, or a file; None where there is none.

    Args:
        environment: Instead of this process's.
        home: Instead of this user's.
    """
    environment = os.environ if environment is None else environment
    if environment.get(TOKEN, "").strip():
        return TOKEN
    if named := environment.get(TOKEN_PATH):
        return named if _is_text(Path(named)) else None
    with contextlib.suppress(RuntimeError):  # a container may run as a user without a home
        usual = (home or Path.home()) / ".ray" / "auth_token"
        return str(usual) if _is_text(usual) else None
    return None


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return False


def _require_token(address: str) -> None:
    if token_place() is not None:
        return
    if named := os.environ.get(TOKEN_PATH):
        raise InputError(
            f"the Ray cluster {address} wants a token, and {TOKEN_PATH} must name a file that holds it, got {quoted(named)}",
            "on the cluster's head: ray get-auth-token; write what it prints into that file",
        )
    raise InputError(
        f"the Ray cluster {address} wants a token, but there is none here: {TOKEN} and {TOKEN_PATH} are not set, and "
        "~/.ray/auth_token is missing or empty",
        f"on the cluster's head: ray get-auth-token; write what it prints into a file here, and name it: {TOKEN_PATH}=FILE",
    )


def _use_token() -> None:
    """Switch token authentication on. Ray reads the variable when it is imported; if that has happened, let it read again."""
    os.environ[MODE] = "token"
    if raylet := sys.modules.get("ray._raylet"):
        raylet.Config.initialize("")  # as Ray itself does it (2.60); it has no public function


def _require_listener(address: str) -> None:
    """Refuse an address where nothing listens: Ray would look for two minutes, and then end the process."""
    if "://" in address:
        raise InputError(
            f"--ray-address must be HOST:PORT of a cluster that this machine belongs to, got {quoted(address)}",
            "start Ray here too: ray start --address HOST:6379; then search with --ray-address HOST:6379",
        )
    host, colon, port = address.rpartition(":")
    if not colon:  # such as "auto"
        return
    if not port.isdigit():
        raise InputError(f"--ray-address must be HOST:PORT, got {quoted(address)}", "for example --ray-address 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--ray-address must be a running Ray cluster, got {quoted(address)}: {reason}", _HINT) from error


def _try_to_join(address: str) -> str | None:
    """Join in another process. Return None if that worked, else what it said."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _TRY, address], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    give_up = threading.Timer(_TRY_S, process.kill)
    give_up.start()
    said: list[str] = []
    with process:
        for line in process.stdout or ():
            if line.strip() == "joined":
                said = []
                break
            said.append(line)
            if _REFUSED.search(line):  # it would be said 20 times
                break
        else:
            said.append(f"it gave no answer in {_TRY_S:g} s\n" if not said else "")
        give_up.cancel()
        process.kill()
    return "".join(said) or None


def _reason(said: str) -> str:
    """Return the last error that a failed process names, on one line."""
    found = re.findall(r"^(?:\w+\.)*(\w+Error|SystemExit)(?:: (.*(?:\n(?!\S+Error).*)*))?", said, re.MULTILINE)
    text = " ".join((found[-1][1] if found and found[-1][1] else said.strip().rpartition("\n")[2]).split())
    return text[:300] or "it gave no answer"
