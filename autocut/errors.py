"""Every error that autocut raises on purpose, and its effect on a run.

    AutocutError ........................ has a message, a hint and an exit code
    |-- InputError (2) .................. the user can fix it: flag, file, data, machine
    |   |-- FaultsError ................. several faults of one input, reported together
    |   |-- UnknownNameError ............ a name that is not registered, with the nearest one
    |   |-- TaskError ................... task.py cannot be loaded or used
    |   |-- SpaceError .................. a space file
    |   |-- StudyError .................. a study folder or its database
    |   |-- BundleError ................. a folder that is not a readable bundle
    |   `-- MissingDependencyError ...... an optional library is missing; the hint installs it
    |-- NoResultError (1) ............... it ran, but no result meets the request
    |   `-- VerificationError ........... a bundle is not what its manifest claims
    `-- TrialError ...................... ends ONE trial, recorded with its reason
        |-- InfeasibleRecipeError ....... this machine cannot make or run this recipe
        |-- DivergedError ............... the loss is not finite
        |-- CompilerError ............... a compiler or exporter refused the model
        |-- OutOfMemoryError ............ the trial needed more memory than the machine has
        |-- DiskFullError ............... another disk than that of the stages has no room
        |-- StoppedEarlyError ........... the training can no longer reach the front
        `-- DeadlineError ............... the time of the trial is up

Wording is *subject, rule, value*; the hint says what to type. Anything that is not an `AutocutError` is a bug. `ExitCode` has
every exit code.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from autocut.counting import format_count


class ExitCode(IntEnum):
    """How a command ended. Programs rely on the numbers: they never change their meaning."""

    DONE = 0
    """It did what was asked. A spent budget is done."""
    NO_RESULT = 1
    """It ran, but no result meets the request, or a claim does not hold."""
    BAD_INPUT = 2
    """A flag, file, model, task or machine cannot be used. The hint says what to type."""
    BUG = 3
    """A bug in autocut, shown with its traceback."""
    INTERRUPTED = 130
    """Ctrl-C (128 + SIGINT). Finished work is kept."""
    TERMINATED = 143
    """SIGTERM (128 + SIGTERM). Finished work is kept."""


class AutocutError(Exception):
    """Base class: a message for a person, an optional hint, and the exit code of the command."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[AutocutError], tuple[str, str | None]]:
        """Keep the hint on the way from a worker process to the driver."""
        return type(self), (self.message, self.hint)


class InputError(AutocutError):
    """An input of the user is wrong, and the user can correct it."""

    exit_code = ExitCode.BAD_INPUT


@dataclass(frozen=True)
class Fault:
    """One fault of an input: what is wrong, what to type instead, and where."""

    message: str
    hint: str | None = None
    where: str | None = None

    def __str__(self) -> str:
        """One line: the message, then the place in brackets."""
        return f"{self.message} ({self.where})" if self.where else self.message


class FaultsError(InputError):
    """All faults of one input, so that the user can correct them together."""

    def __init__(self, subject: str, faults: Sequence[Fault]) -> None:
        super().__init__(f"{subject} has {format_count(len(faults), 'fault')}")
        self.subject = subject
        self.faults = tuple(faults)

    def __reduce__(self) -> tuple[type[FaultsError], tuple[str, tuple[Fault, ...]]]:  # type: ignore[override]
        """Keep every fault on the way from a worker process to the driver."""
        return type(self), (self.subject, self.faults)


class UnknownNameError(InputError):
    """A name is unknown. autocut never replaces it by a default."""


@dataclass(frozen=True)
class MessageParts:
    """A message of the usual form, taken apart. All three are None where the message has another form."""

    subject: str | None
    rule: str | None
    value: str | None


def in_parts(message: str) -> MessageParts:
    """Take ``SUBJECT must RULE, got VALUE`` apart, for programs. The value alone is None where the message names none."""
    found = _USUAL_FORM.fullmatch(message)
    return MessageParts(*found.groups()) if found else MessageParts(None, None, None)


_USUAL_FORM = re.compile(r"(.+?) (must .+?)(?:, (?:but )?(?:got|has|is) (.+))?", re.DOTALL)


_WHOLE, _BEGINNING = 160, 80
"""An error quotes a value of so many characters whole. Of a longer value it quotes the first ones, so many."""
_LISTED = 20
"""An error lists so many of the user's own values, and counts the others."""


def shortened(text: str) -> str:
    """Return `text`; of a long one its beginning, and how much more there is: by mistake a user may hand in a whole file."""
    if len(text) <= _WHOLE:
        return text
    return f"{text[:_BEGINNING]}… ({len(text) - _BEGINNING:,} more characters)"


def quoted(value: object) -> str:
    """Return `value` as an error quotes it: as Python writes it, shortened."""
    return shortened(repr(value))


def listed(values: Iterable[object], between: str = ", ") -> str:
    """Return the user's own `values` as an error lists them: each shortened, and not all of very many."""
    texts = [shortened(str(value)) for value in values]
    more = [f"{len(texts) - _LISTED:,} more"] if len(texts) > _LISTED else []
    return between.join([*texts[:_LISTED], *more])


def unknown_name(subject: str, value: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for `value`, which is not in `known`. The hint gives the nearest name, or an example."""
    names = sorted(known)
    return UnknownNameError(f"{subject} must be one of {', '.join(names)}, got {quoted(value)}", name_hint(value, names))


def name_hint(value: str, known: Iterable[str]) -> str | None:
    """Return the hint of `nearest_hint`, or an example where no known name is near; None where no name is known."""
    names = list(known)
    example = f"write one of them, such as {quoted(names[0])}" if names else None
    return nearest_hint(value, names) or example


def nearest_hint(value: str, known: Iterable[str]) -> str | None:
    """Return "did you mean 'x'?" for the known name nearest to `value`, or None if no name is near."""
    nearest = difflib.get_close_matches(value, list(known), n=1)
    return f"did you mean {quoted(nearest[0])}?" if nearest else None


class TaskError(InputError):
    """A task file that cannot be loaded, or a task that cannot be used."""


class SpaceError(InputError):
    """A space that cannot be read or searched."""


class StudyError(InputError):
    """A study folder that is missing, locked, damaged or made for another task, space or objective."""


class BundleError(InputError):
    """A folder that cannot be read as a bundle."""


class MissingDependencyError(InputError):
    """An optional library is not installed; the hint is the command that installs it."""


class NoResultError(AutocutError):
    """The command ran, but no result meets the request."""

    exit_code = ExitCode.NO_RESULT


class VerificationError(NoResultError):
    """A bundle does not meet the claims of its manifest."""


class TrialError(AutocutError):
    """Ends one trial. The study records the reason, and the dashboard shows it."""


class InfeasibleRecipeError(TrialError):
    """The recipe cannot work on this model or machine: no layer to change, no kernel, no hardware."""


class DivergedError(TrialError):
    """The loss or the metric is not a finite number."""


class CompilerError(TrialError):
    """A compiler, exporter or quantizer refused the model; the message carries its first line."""


class OutOfMemoryError(TrialError):
    """The trial needed more memory than the machine has."""


class DiskFullError(TrialError):
    """A disk is full that is not the one of the stages, such as that of temporary files. Other recipes may need no room there."""


class StoppedEarlyError(TrialError):
    """The cost is known, and even an optimistic accuracy at the end of the training would not reach the front."""


class DeadlineError(TrialError):
    """The time of the trial is up; it stopped at a batch boundary."""
