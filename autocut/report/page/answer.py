"""The answer of the page: what to take, what it saves against the untouched model, and the commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from autocut.measurement import Interval
from autocut.recipe import UNTOUCHED
from autocut.report.page.contents import Answer, Recommendation, Tile, TrialLine
from autocut.report.page.trials import DIFFERENCE
from autocut.report.words import show

_TILES: Mapping[str, tuple[str, str, str]] = {
    "usd_per_million": ("a million predictions", "cheaper", "dearer"),
    "latency_ms": ("one call (p50)", "faster", "slower"),
    "size_bytes": ("size", "smaller", "larger"),
}
_CODE = """import autocut

model = autocut.load("out/")
output = model(inputs)  # one batch"""


def answer_of(
    folder: Path, recommended: Recommendation, lines: Mapping[int, TrialLine], bill: Sequence[str] = (), looks: int = 0
) -> Answer:
    """Return the answer for the recommended point.

    Its numbers are those of the locked test split if both the point and the untouched model have them, else those of the
    validation split; the answer says which.

    Args:
        folder: Folder of the study, as the user named it.
        recommended: What to take.
        lines: Every trial of the study, by number.
        bill: The bill of the recommended point, as `autocut.bill.bill_lines` tells it.
        looks: How often a model was scored on the locked test split.
    """
    chosen = lines[recommended.point.trial]
    untouched = next((line for line in lines.values() if line.recipe == UNTOUCHED.describe() and line.validation), None)
    is_untouched = untouched is not None and untouched.trial == chosen.trial
    headline = "Keep the untouched model" if is_untouched else f"Take trial {chosen.trial}"
    tested = bool(chosen.test) and (untouched is None or bool(untouched.test))
    tiles = () if untouched is None or is_untouched else _tiles(_numbers(untouched, tested), _numbers(chosen, tested))
    doubts = [_sentence(recommended.doubt)] if recommended.doubt else []
    notes = [_sentence(recommended.reason), _splits(chosen, looks), *doubts, *map(_sentence, chosen.notes)]
    if not is_untouched:
        notes = [*map(_sentence, bill), *notes]
    return Answer(
        headline=headline,
        lead=chosen.recipe,
        notes=tuple(note for note in notes if note),
        tiles=tiles,
        picks=recommended.picks,
        commands=f"autocut export {shlex.quote(str(folder))} --trial {chosen.trial} --to out/\nautocut verify out/",
        code=_CODE,
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _numbers(line: TrialLine, tested: bool) -> Mapping[str, Interval]:
    return line.test if tested else line.validation


def _tiles(before: Mapping[str, Interval], after: Mapping[str, Interval]) -> tuple[Tile, ...]:
    tiles = [_accuracy_tile(before["accuracy"], after)]
    for name, (label, better, worse) in _TILES.items():
        if name in before and name in after:
            spread = after[name]
            interval = f"{show(name, spread.low)} to {show(name, spread.high)}" if spread.high > spread.low else ""
            change = _ratio(before[name].value, spread.value, better, worse)
            tiles.append(Tile(label, show(name, before[name].value), show(name, spread.value), change, interval))
    return tuple(tiles)


def _accuracy_tile(before: Interval, after: Mapping[str, Interval]) -> Tile:
    """Return the tile of the metric; its interval is that of the paired difference where it is known."""
    unit, digits = (" points", "+.2f") if 0 <= before.value <= 1 else ("", "+.4g")
    scale = 100 if unit else 1
    now, paired = after["accuracy"], after.get(DIFFERENCE)
    spread = f"{scale * paired.low:{digits}} to {scale * paired.high:{digits}}{unit}" if paired else ""
    change = f"{scale * (now.value - before.value):{digits}}{unit}"
    return Tile("accuracy", show("accuracy", before.value), show("accuracy", now.value), change, spread)


def _ratio(before: float, after: float, better: str, worse: str) -> str:
    if before == after or min(before, after) <= 0:
        return "the same" if before == after else ""
    return f"{max(before, after) / min(before, after):.3g}× {better if after < before else worse}"


def _splits(chosen: TrialLine, looks: int) -> str:
    chose = chosen.validation["accuracy"].value
    if not chosen.test:
        return f"Its validation accuracy of {chose:.4f} chose it. The locked test split has not been opened for it yet."
    reported = chosen.test["accuracy"].value
    return (
        f"Its validation accuracy of {chose:.4f} chose it; the locked test split, which chose nothing, gives {reported:.4f} "
        f"({reported - chose:+.4f}). The study has {looks} look{'' if looks == 1 else 's'} at that split."
    )
