"""Seconds, bytes, dollars and percents as people write them, and the wall-clock budget of a search.

A quantity always has a unit: ``8h``, ``10GB``, ``1%``. A bare number is refused, because its unit could only be guessed.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from autocut.errors import InputError, quoted, shortened

Clock = Callable[[], float]

TRAINING_SHARE = 0.5
"""Share of the time left that the training of the untouched model may take. It also waits while structures are timed (about a tenth
of the time); the rest is for its lowerings and for bundles."""
_CHECKING_S = 60.0

_SECONDS: Mapping[str, int] = MappingProxyType({"d": 86_400, "h": 3_600, "m": 60, "s": 1})
_BYTES: Mapping[str, int] = MappingProxyType(
    {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z%]*)")


def parse_duration(text: str, subject: str = "duration") -> float:
    """Read a positive duration such as ``8h``, ``30m``, ``90s``, ``1h30m`` or ``1.5h``.

    Args:
        text: Numbers with the units d, h, m, s, from large to small, each unit at most once.
        subject: What the duration is for; the error message begins with it.

    Returns:
        Seconds.

    Raises:
        InputError: A unit is missing, unknown or out of order, or the duration is zero.
    """
    cleaned = text.strip().lower()
    if _is_number(cleaned):
        raise InputError(f"{subject} must have a unit, got {quoted(text)}", _with_units(cleaned, "h", "m", "s"))
    parts = _DURATION_PART.findall(cleaned) if _DURATION.fullmatch(cleaned) else []
    units = [unit for _, unit in parts]
    if not parts or units != [unit for unit in _SECONDS if unit in units]:
        raise InputError(f"{subject} must be a duration, got {quoted(text)}", "write it as 8h, 30m, 90s or 1h30m")
    seconds = math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 < seconds < math.inf:
        raise InputError(f"{subject} must be more than zero, got {quoted(text)}", "write it as 8h, 30m, 90s or 1h30m")
    return seconds


def format_duration(seconds: float) -> str:
    """Write `seconds` as `parse_duration` reads them: in whole seconds, below ten seconds in tenths."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}".removesuffix(".0") + "s"
    left = round(seconds)
    words = []
    for unit, size in _SECONDS.items():
        count, left = divmod(left, size)
        if count:
            words.append(f"{count}{unit}")
    return "".join(words)


def budget_for_training(seconds: float) -> str:
    """Return a budget in whole minutes that has room for `seconds` of training the untouched model, and for what comes before."""
    return f"{math.ceil((1.1 * seconds / TRAINING_SHARE + _CHECKING_S) / 60)}m"


def parse_size(text: str, subject: str = "size") -> int:
    """Read a number of bytes such as ``10GB`` (powers of 1000) or ``512MiB`` (powers of 1024).

    Raises:
        InputError: The unit is missing or unknown, or the size is less than one byte.
    """
    cleaned = text.strip().lower()
    if _is_number(cleaned):
        raise InputError(f"{subject} must have a unit, got {quoted(text)}", _with_units(cleaned, "MB", "GB"))
    match = _QUANTITY.fullmatch(cleaned)
    if match is None or match[2] not in _BYTES:
        raise InputError(f"{subject} must be a size, got {quoted(text)}", "write it as 500KB, 5MB, 10GB or 10GiB")
    size = float(match[1]) * _BYTES[match[2]]
    if not math.isfinite(size):
        raise InputError(f"{subject} must be a size, got {quoted(text)}", "write it as 500KB, 5MB, 10GB or 10GiB")
    if round(size) < 1:
        raise InputError(f"{subject} must be at least one byte, got {quoted(text)}", "write it as 500KB, 5MB, 10GB or 10GiB")
    return round(size)


def format_size(size_bytes: float) -> str:
    """Write a number of bytes with three digits and a unit (powers of 1000), such as ``4.63MB``."""
    value, unit = float(size_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    decimals = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f}{unit}"


def format_usd(usd: float) -> str:
    """Write an amount with three significant digits and without an exponent, such as ``$0.0000692`` or ``$12.50``."""
    decimals = 2 if usd == 0 else max(2, 2 - math.floor(math.log10(abs(usd))))
    return f"${usd:.{decimals}f}"


def parse_percent(text: str, subject: str = "percentage") -> float:
    """Read a percentage from 0% to 100%, such as ``1%``, and return it as a fraction.

    Raises:
        InputError: The percent sign is missing, or the number is outside 0% to 100%.
    """
    cleaned = text.strip()
    if _is_number(cleaned):
        raise InputError(f"{subject} must have a percent sign, got {quoted(text)}", _with_units(cleaned, "%"))
    match = _QUANTITY.fullmatch(cleaned)
    if match is None or match[2] != "%" or not 0 <= float(match[1]) <= 100:
        raise InputError(f"{subject} must be a percentage from 0% to 100%, got {quoted(text)}", "write it as 1% or 0.5%")
    return float(match[1]) / 100


def checked_share(value: float, subject: str) -> float:
    """Return `value` if it is a share: 0.01 for 1%.

    Raises:
        InputError: It is no number from 0 to 1. Percentages are the usual reason.
    """
    if 0 <= value <= 1:
        return value
    hint = f"{subject}={value / 100:g} is {value:g}%" if 1 < value <= 100 else f"{subject}=0.01 is 1%"
    raise InputError(f"{subject} must be a share from 0 to 1, got {value:g}", hint)


@dataclass(frozen=True)
class Budget:
    """Wall-clock seconds of a search over all its runs. Only worked time counts.

    Earlier runs used `spent_s`. Finalization gets `reserve_s`. `clock` counts the seconds of this run; a simulation can replace it.
    Deadlines are readings of that clock. The processes of one machine share ``time.monotonic``, several machines do not.
    """

    total_s: float
    spent_s: float = 0.0
    reserve_s: float = 0.0
    clock: Clock = time.monotonic
    started: float = field(default=math.nan)

    def __post_init__(self) -> None:
        """Start counting now if no start is given."""
        if math.isnan(self.started):
            object.__setattr__(self, "started", self.clock())

    def spent(self) -> float:
        """Seconds that earlier runs and this run have used until now."""
        return self.spent_s + (self.clock() - self.started)

    def left(self) -> float:
        """Seconds left, with the reserve; never below zero."""
        return max(0.0, self.total_s - self.spent())

    def search_left(self) -> float:
        """Seconds left for new trials, without the reserve; never below zero."""
        return max(0.0, self.total_s - self.reserve_s - self.spent())

    @property
    def deadline(self) -> float:
        """Clock reading at which everything must have ended."""
        return self.started + self.total_s - self.spent_s

    @property
    def search_deadline(self) -> float:
        """Clock reading at which trials must have stopped, so that the whole reserve is left."""
        return self.deadline - self.reserve_s

    def with_reserve(self, reserve_s: float) -> Budget:
        """Return the same budget, counted from the same start, with another reserve."""
        return replace(self, reserve_s=reserve_s)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(?:\.\d+)?", text) is not None


def _with_units(number: str, *units: str) -> str:
    *others, last = [f"{shortened(number)}{unit}" for unit in units]
    return f"write {' or '.join([', '.join(others), last] if others else [last])}"
