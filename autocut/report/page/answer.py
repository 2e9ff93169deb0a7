"""The answer of the page: what to take, what it saves against the untouched model, and the commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from autocut.bill import Bill
from autocut.counting import format_count
from autocut.front import FrontPoint
from autocut.gains import decimals, times
from autocut.measurement import Interval
from autocut.picks import told_once
from autocut.recipe import UNTOUCHED
from autocut.report.page.contents import Answer, Recommendation, Tile, TrialLine
from autocut.report.page.trials import DIFFERENCE
from autocut.report.words import show
from autocut.score import interval_of

_LATENCY, _SIZE = ("one call (p50)", "faster", "slower"), ("size", "smaller", "larger")
_MONEY = ("a million predictions", "cheaper", "dearer")
_BASELINE = "baseline"
_CODE = """import autocut

model = autocut.load("out/")
output = model(inputs)  # one batch"""


def answer_of(
    folder: Path, recommended: Recommendation, lines: Mapping[int, TrialLine], bill: Bill | None = None, money: Sequence[str] = (),
    looks: int = 0,
) -> Answer:  # fmt: skip
    """Return the answer for the recommended point.

    Its numbers are those of the locked test split if both the point and the untouched model have them, else those of the
    validation split; the answer says which. Dollars are those of the bill, so that the page has one ratio of money.

    Args:
        folder: Folder of the study, as the user named it.
        recommended: What to take.
        lines: Every trial of the study, by number.
        bill: The bill of the recommended point.
        money: The bill in sentences, as `autocut.bill.bill_lines` tells it.
        looks: How often a model was scored on the locked test split.
    """
    chosen = lines[recommended.point.trial]
    untouched = next((line for line in lines.values() if line.recipe == UNTOUCHED.describe() and line.validation), None)
    is_untouched = untouched is not None and untouched.trial == chosen.trial
    headline = "Keep the untouched model" if is_untouched else f"Take trial {chosen.trial}"
    tested = bool(chosen.test) and (untouched is None or bool(untouched.test))
    tiles: tuple[Tile, ...] = ()
    if untouched is not None and not is_untouched:
        tiles = _tiles(recommended.point, (_numbers(untouched, tested), _numbers(chosen, tested)), bill, is_final=tested)
    doubts = [_sentence(recommended.doubt)] if recommended.doubt else []
    told = [note for note in chosen.notes if note != _BASELINE]  # the mark of a row of the table: here it says nothing
    notes = [_sentence(recommended.reason), _splits(chosen, looks), *doubts, *map(_sentence, told)]
    bill_lines = () if is_untouched else tuple(map(_sentence, money))
    remarks = [remark for remark in chosen.remarks if not any(remark in line for line in bill_lines)]
    return Answer(
        headline=headline,
        lead=chosen.recipe,
        notes=tuple(note for note in notes if note),
        money=bill_lines,
        remarks=tuple(map(_sentence, remarks)),
        tiles=tiles,
        picks=told_once(recommended.picks),
        commands=f"autocut export {shlex.quote(str(folder))} --trial {chosen.trial} --to out/\nautocut verify out/",
        code=_CODE,
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _numbers(line: TrialLine, tested: bool) -> Mapping[str, Interval]:
    return line.test if tested else line.validation


def _tiles(
    chosen: FrontPoint, numbers: tuple[Mapping[str, Interval], Mapping[str, Interval]], bill: Bill | None, *, is_final: bool
) -> tuple[Tile, ...]:
    before, after = numbers
    tiles = [_accuracy_tile(before["accuracy"], after, "test" if is_final else "validation")]
    if bill is not None:
        tiles.append(_money_tile(chosen, bill))
    elif "usd_per_million" in before and "usd_per_million" in after:  # the price is unknown, so nothing else is
        whose = f" as one process, {_timing(is_final=is_final)}"
        tiles.append(_tile("usd_per_million", _MONEY, whose, before["usd_per_million"].value, after["usd_per_million"]))
    for name, words in (("latency_ms", _LATENCY), ("size_bytes", _SIZE)):
        if name in before and name in after:
            timing = f", {_timing(is_final=is_final)}" if name == "latency_ms" else ""
            tiles.append(_tile(name, words, timing, before[name].value, after[name]))
    return tuple(tiles)


def _money_tile(chosen: FrontPoint, bill: Bill) -> Tile:
    """Return the tile of the bill's dollars, and whose they are."""
    final = chosen.final
    values, measurement = (chosen.values, chosen.measurement) if final is None else (final.values, final.measurement)
    whose = f" {measurement.charged_as}, {_timing(is_final=final is not None)}"
    spread = interval_of("usd_per_million", values, measurement)
    return _tile("usd_per_million", _MONEY, whose, bill.untouched_usd_per_million, spread)


def _timing(*, is_final: bool) -> str:
    return "final timing" if is_final else "timing of the search"


def _tile(name: str, words: tuple[str, str, str], of: str, before: float, after: Interval) -> Tile:
    title, better, worse = words
    spread = f"{show(name, after.low)} to {show(name, after.high)}" if after.high > after.low else ""
    change = _ratio(before, after.value, better, worse)
    return Tile(f"{title}{of}", show(name, before), show(name, after.value), change, spread)


def _accuracy_tile(before: Interval, after: Mapping[str, Interval], split: str) -> Tile:
    """Return the tile of the metric; its interval is that of the paired difference where it is known."""
    now, paired = after["accuracy"], after.get(DIFFERENCE)
    lost = now.value - before.value
    unit, scale, digits = ("", 1, "+.4g")
    if 0 <= before.value <= 1:
        unit, scale, digits = (" points", 100, f"+.{decimals(100 * lost, least=2)}f")
    spread = f"{scale * paired.low:{digits}} to {scale * paired.high:{digits}}{unit}" if paired else ""
    change = f"{scale * lost:{digits}}{unit}"
    return Tile(f"accuracy, {split}", show("accuracy", before.value), show("accuracy", now.value), change, spread)


def _ratio(before: float, after: float, better: str, worse: str) -> str:
    if before == after or min(before, after) <= 0:
        return "the same" if before == after else ""
    ratio = times(max(before, after) / min(before, after)).replace("x", "×")
    return f"{ratio} {better if after < before else worse}"


def _splits(chosen: TrialLine, looks: int) -> str:
    chose = chosen.validation["accuracy"].value
    if not chosen.test:
        return f"Its validation accuracy of {chose:.4f} chose it. The locked test split has not been opened for it yet."
    reported = chosen.test["accuracy"].value
    return (
        f"Its validation accuracy of {chose:.4f} chose it; the locked test split, which chose nothing, gives {reported:.4f} "
        f"({reported - chose:+.4f}). The study has {format_count(looks, 'look')} at that split."
    )
