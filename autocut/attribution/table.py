"""The ladder as a table of words, for the terminal and for the page of `autocut report`."""

from __future__ import annotations

from autocut.attribution.effects import Effect, LadderRung
from autocut.attribution.explanation import Explanation
from autocut.attribution.words import say_accuracy, say_factor, say_percent
from autocut.budget import format_size, format_usd

LADDER_COLUMNS = ("step", "accuracy", "change", "speed-up", "$ per million", "change", "size", "change")


def ladder_rows(explanation: Explanation) -> list[tuple[str | None, ...]]:
    """Return a row for the untouched model, one for each step, and one for all steps together. A cell without meaning is None."""
    ladder, untouched = explanation.ladder, explanation.untouched
    is_share = 0 <= untouched.values["accuracy"] <= 1
    first = ("untouched", _accuracy(untouched), None, None, *_costs(untouched, None))
    rows = [first, *(_row(step.name, step.rung, step.effect, is_share=is_share) for step in ladder.steps)]
    if len(ladder.steps) > 1:
        rows.append(_row("all together", ladder.steps[-1].rung, ladder.whole, is_share=is_share))
    return rows


def _row(name: str, rung: LadderRung, effect: Effect, *, is_share: bool) -> tuple[str | None, ...]:
    accuracy = say_accuracy(effect.accuracy, is_share=is_share) + (" tie" if effect.is_accuracy_tie else "")
    is_measured = effect.speedup.low < effect.speedup.high  # other weights alone have no timing of their own
    speed = say_factor(effect.speedup) + (" tie" if effect.is_speed_tie and is_measured else "")
    return name, _accuracy(rung), accuracy, speed, *_costs(rung, effect)


def _accuracy(rung: LadderRung) -> str:
    return f"{rung.values['accuracy']:.4g}"


def _costs(rung: LadderRung, effect: Effect | None) -> tuple[str | None, str | None, str | None, str | None]:
    dollars, size = format_usd(rung.values["usd_per_million"]), format_size(rung.values["size_bytes"])
    if effect is None:
        return dollars, None, size, None
    return dollars, say_percent(1 / effect.speedup.value), size, say_percent(effect.size)
