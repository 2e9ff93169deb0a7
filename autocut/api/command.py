"""Runs one command line of autocut in a process of its own, and returns the document that it prints."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autocut import errors
from autocut.budget import checked_share
from autocut.errors import AutocutError, ExitCode, Fault, FaultsError

Amount = str | float
"""A quantity: text as on the command line ("8h", "10GB", "1%"), or a number in the unit that the parameter names."""

_SHARES = ("max_accuracy_drop", "utilization")
_PATIENCE_S = 60.0
"""What an interrupted command may take to put its things in order."""


def run(
    words: Sequence[str], *, quiet: bool = False, may_lack_a_result: bool = False, may_have_faults: bool = False
) -> dict[str, Any]:
    """Run ``autocut WORDS --json`` and return its document. What it writes to stderr appears on this process's, unless `quiet`.

    Args:
        words: Verb and arguments.
        quiet: Whether to drop what the command says while it runs.
        may_lack_a_result: Return the verb's document too if the command ends without a result (exit code 1).
        may_have_faults: Return the verb's document too if the input has faults (exit code 2).

    Raises:
        AutocutError: The command failed: the error that it had.
        KeyboardInterrupt: This process or the command was interrupted.
    """
    process = subprocess.Popen(
        # -P: a file of the folder that one stands in must not hide a module.
        [sys.executable, "-P", "-m", "autocut.api.attached", str(os.getpid()), *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        encoding="utf-8",
        process_group=0,  # a terminal's Ctrl-C reaches this process alone, which then passes it on once
    )
    with _interrupted_with_this(process):
        printed, told = process.communicate()
    document = _parsed(printed)
    if document is None or process.returncode < 0:
        raise AutocutError(
            f"autocut {words[0]} ended without a document (exit code {process.returncode}). {(told or '')[-2000:]}".strip()
        )
    if "error" not in document:
        accepted = {ExitCode.DONE} | ({ExitCode.NO_RESULT} if may_lack_a_result else set())
        if process.returncode in accepted or (may_have_faults and process.returncode == ExitCode.BAD_INPUT):
            return document
        raise AutocutError(f"autocut {words[0]} ended with exit code {process.returncode}")
    if process.returncode in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        raise KeyboardInterrupt(document["error"]["message"])
    raise as_error(document["error"])


def flags(options: Mapping[str, Any]) -> list[str]:
    """Write options as flags: ``{"max_accuracy_drop": 0.01}`` as ``--max-accuracy-drop 1%``. None leaves an option out."""
    words: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        several = isinstance(value, Sequence) and not isinstance(value, str)
        # With "=": a value may begin with a dash.
        words += [f"--{flag}={_written(name, item)}" for item in (value if several else [value])]
    return words


def duration(amount: Amount) -> str:
    """Write a time as a flag's value: text as it is, a number as seconds."""
    return amount if isinstance(amount, str) else f"{amount:g}s"


def as_error(told: Mapping[str, Any]) -> AutocutError:
    """Make the exception that the document of an error describes."""
    found = getattr(errors, told["kind"], AutocutError)
    if told["faults"]:
        subject = told["message"].rpartition(" has ")[0]
        return noted(FaultsError(subject, [Fault(fault["message"], fault["hint"], fault["where"]) for fault in told["faults"]]))
    kind = found if isinstance(found, type) and issubclass(found, AutocutError) else AutocutError
    return noted(kind(told["message"], told["hint"]))


def noted(error: AutocutError) -> AutocutError:
    """Add the hints as notes, so that Python shows them below the message where nobody catches the error."""
    for fault in error.faults if isinstance(error, FaultsError) else ():
        error.add_note(f"{fault}\n  hint: {fault.hint}" if fault.hint else str(fault))
    if error.hint:
        error.add_note(f"hint: {error.hint}")
    return error


def _written(name: str, value: object) -> str:
    """Write a number with the unit of its flag.

    Raises:
        InputError: A share is not from 0 to 1: a percentage was meant.
    """
    if isinstance(value, int | float):
        if name in _SHARES:
            checked_share(value, name)
        units = {"max_accuracy_drop": (100.0, "%"), "cache_size": (1.0, "B"), "worker_memory": (1.0, "B")}
        scale, unit = units.get(name, (1.0, ""))
        return f"{scale * value:.12g}{unit}" if unit else str(value)
    return str(value)


@contextlib.contextmanager
def _interrupted_with_this(process: subprocess.Popen[str]) -> Iterator[None]:
    """Interrupt the process if the block is left by an exception, and wait until it has put its things in order."""
    try:
        yield
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def _parsed(printed: str) -> dict[str, Any] | None:
    try:
        document = json.loads(printed)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
