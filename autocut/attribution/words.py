"""How effects are said to a person: with their intervals, and a tie as a tie. No torch."""

from __future__ import annotations

from autocut.attribution.effects import LEAST_SAVING, Effect
from autocut.gains import decimals
from autocut.measurement import Interval


def say_accuracy(difference: Interval, *, is_share: bool) -> str:
    """Return such as ``-0.6 points (-1.3 to +0.1)``; a metric that is no share of 1 has no points."""
    scale, unit = (100, " points") if is_share else (1, "")
    digits = f"+.{decimals(100 * difference.value, least=1)}f" if is_share else "+.3g"
    value, low, high = (_signed(scale * bound, digits) for bound in (difference.value, difference.low, difference.high))
    return f"{value}{unit}" if low == high else f"{value}{unit} ({low} to {high})"


def say_factor(factor: Interval) -> str:
    """Return such as ``2.31x (2.25 to 2.37)``."""
    value, low, high = (f"{bound:.3g}" for bound in (factor.value, factor.low, factor.high))
    return f"{value}x" if low == high else f"{value}x ({low} to {high})"


def say_speed(effect: Effect) -> str:
    """Return such as ``2.31x faster (2.25 to 2.37)``, or that the speed is a tie."""
    factor = effect.speedup
    if effect.is_speed_tie:
        return "the same speed" if factor.low == factor.high else f"a tie in speed ({factor.low:.3g}x to {factor.high:.3g}x)"
    if factor.value >= 1:
        return f"{factor.value:.3g}x faster ({factor.low:.3g} to {factor.high:.3g})"
    return f"{1 / factor.value:.3g}x slower ({1 / factor.high:.3g} to {1 / factor.low:.3g})"


def say_effect(effect: Effect, *, is_share: bool) -> str:
    """Return speed, accuracy, and size where that became smaller."""
    return ", ".join([say_speed(effect), _accuracy_or_tie(effect, is_share=is_share), *say_smaller(effect)])


def say_briefly(effect: Effect, *, is_share: bool, whose_speed: str = "") -> str:
    """Return what changed for sure, without intervals, such as ``2.31x faster, accuracy -0.6 points``.

    `whose_speed` follows the speed where a reader could mistake it for another one.
    """
    parts = [] if effect.is_speed_tie else [say_speed(effect).partition(" (")[0] + whose_speed]
    if not effect.is_accuracy_tie:
        parts.append(f"accuracy {say_accuracy(effect.accuracy, is_share=is_share).partition(' (')[0]}")
    return ", ".join([*parts, *say_smaller(effect)]) or "no sure change"


def say_percent(factor: float) -> str:
    """Return the change by a factor in percent, such as ``-57%``."""
    return _signed(100 * (factor - 1), "+.0f") + "%"


def say_smaller(effect: Effect) -> list[str]:
    """Return such as ``3.4x smaller``; nothing where the file is no smaller."""
    if not effect.is_smaller:
        return []
    if effect.size < 1 - LEAST_SAVING:
        return [f"{1 / effect.size:.3g}x smaller"]
    return [f"{1 / effect.compressed:.3g}x smaller in an archive"]


def _accuracy_or_tie(effect: Effect, *, is_share: bool) -> str:
    said = say_accuracy(effect.accuracy, is_share=is_share)
    if not effect.is_accuracy_tie:
        return said
    return "the same accuracy" if effect.accuracy.low == effect.accuracy.high else f"a tie in accuracy: {said}"


def _signed(number: float, digits: str) -> str:
    """Write a number with its sign; what rounds to zero has none."""
    text = f"{number:{digits}}"
    return text[1:] if float(text) == 0 else text
