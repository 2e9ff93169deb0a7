"""Make the first guesses of a search from the rows of the matrix, and check them on families that they were not made from.

    AUTOCUT_DATA=/data python studies/method_matrix/first_guesses.py            # writes autocut/search/first_guesses.json
    python studies/method_matrix/first_guesses.py --check                       # each family guessed from the others

The traits of a family are those of its task's model, so its data has to be there. `--check` reads the written file alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

from families import BATCH_SIZES, FAMILIES, STUDIES
from rows import Row, read_rows
from scipy.stats import spearmanr

from autocut.recipe import Lowering
from autocut.search.first_guesses import (
    COLUMNS,
    FILE,
    SCHEMA_VERSION,
    FirstGuesses,
    MethodEffect,
    ModelFamily,
    deciding,
    kept_of,
    known_families,
    surprise_expected,
    to_document,
)

HERE = Path(__file__).parent
ROWS = HERE / "rows.csv"
TARGET = HERE.parents[1] / "autocut" / "search" / FILE
_LEAST_S = 0.05
_USED = ("lowering", "recover")
"""Axes of the matrix from which a search guesses."""


def main() -> None:
    """Write the file, or check what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="guess each family from the others, and say how good that is")
    parser.add_argument("--measured", default="2026-11-29", help="day on which the rows were measured")
    parser.add_argument("--processor", default="AMD EPYC Genoa, two shared cores", help="where the rows were measured")
    parser.add_argument("--instructions", default="avx2 avx512_vnni avx512_bf16", help="its instruction sets")
    options = parser.parse_args()
    if options.check:
        print("\n".join(check_lines()))
        return
    TARGET.write_text(written(read_rows(ROWS), options), encoding="utf-8")
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1e3:.0f} kB")


def written(rows: Iterable[Row], origin: argparse.Namespace) -> str:
    """Return the file's text: a line a method, so that a new measurement is a readable change."""
    from autocut.execution.model_traits import traits_of
    from autocut.task.loading import load_task

    own: dict[str, list[Row]] = {}
    for row in rows:
        if row.outcome == "measured":
            own.setdefault(row.family, []).append(row)
    head = {
        "schema_version": SCHEMA_VERSION,
        "made_by": "python studies/method_matrix/first_guesses.py",
        "source": {"file": "studies/method_matrix/rows.csv", "sha256": hashlib.sha256(ROWS.read_bytes()).hexdigest()},
        "measured": origin.measured,
        "processor": {"name": origin.processor, "instructions": sorted(deciding(origin.instructions))},
        "columns": list(COLUMNS),
    }
    tasks = {name: load_task(STUDIES / FAMILIES[name].study / "task.py") for name in own}
    families = {name: to_document(ModelFamily(name, traits_of(tasks[name]), *_effects_of(found))) for name, found in own.items()}
    return _text({**head, "families": families}) + "\n"


def _effects_of(rows: list[Row]) -> tuple[tuple[float, float], dict[str, dict[str, MethodEffect]]]:
    """Return milliseconds of a call of the untouched model, and the effects of the family."""
    untouched = next(row for row in rows if row.axis == "untouched")
    effects: dict[str, dict[str, MethodEffect]] = {axis: {} for axis in _USED}
    slowest = _usual_seconds(rows)
    for row in rows:
        if row.axis in _USED:
            mode, _, dtype = row.method.partition(" ")
            name = f"{dtype}/{mode}" if row.axis == "lowering" else row.method
            # Inductor keeps what it has compiled for another dtype. A search may begin with this one.
            seconds = max(_seconds(row), slowest.get(mode, 0.0)) if row.axis == "lowering" else row.train_seconds or 0.0
            effects[row.axis][name] = MethodEffect(
                _number(row.speedup_1), _number(row.speedup_32), _number(row.size_ratio),
                kept_of(_number(row.change), _number(untouched.accuracy)), max(seconds, _LEAST_S),
            )  # fmt: skip
    return (_number(untouched.latency_1_ms), _number(untouched.latency_32_ms)), effects


def _usual_seconds(rows: Iterable[Row]) -> dict[str, float]:
    """Median seconds of the lowerings of each mode that compiles with torch.compile."""
    of_mode: dict[str, list[float]] = {}
    for row in rows:
        if row.axis == "lowering" and row.method.startswith("torch_compile"):
            of_mode.setdefault(row.method.partition(" ")[0], []).append(_seconds(row))
    return {mode: statistics.median(seconds) for mode, seconds in of_mode.items()}


def _seconds(row: Row) -> float:
    return (row.lower_seconds or 0.0) + (row.cold_start_seconds or 0.0)


def _number(value: float | None) -> float:
    if value is None:
        raise SystemExit("a measured row lacks a number: measure it again")
    return float(value)


def _text(document: dict[str, object]) -> str:
    """Return JSON with a line for each list of numbers."""
    text = json.dumps(document, indent=1)
    lines: list[str] = []
    for line in text.splitlines():
        inner = line.strip()
        if lines and (lines[-1].endswith("[") or (lines[-1].endswith(",") and _is_item(inner))) and "{" not in inner:
            lines[-1] += ("" if lines[-1].endswith("[") else " ") + inner
        elif lines and inner.startswith("]"):
            lines[-1] += inner
        else:
            lines.append(line)
    return "\n".join(lines)


def _is_item(text: str) -> bool:
    return ":" not in text and not text.startswith("}")


# ---- check ----------------------------------------


def check_lines() -> Iterator[str]:
    """Say for each family how good the guesses are that the other families give."""
    yield "| family | nearest other | batch | rank correlation | first choice | best of first three | seconds, factor off |"
    yield "|---|---|---|---|---|---|---|"
    for family in known_families().families:
        if family.traits is None:
            continue
        guesses = known_families().guesses(family.traits, " ".join(known_families().instructions), without=[family.name])
        for batch, call_ms in zip(BATCH_SIZES, family.call_ms, strict=True):
            yield _check_line(family, guesses.at(call_ms), batch)
    yield ""
    yield "How far guesses of the rest are off (mean logarithm of the factor), once the most promising lowerings are timed:"
    yield ""
    yield "| timed | off | off, with surprises | rank correlation | with surprises |"
    yield "|---|---|---|---|---|"
    yield from map(_surprise_line, (1, 2, 4, 6, 10))


def _check_line(family: ModelFamily, guesses: FirstGuesses, batch: int) -> str:
    truth, guessed, factors = [], [], []
    for lowering, effect in _lowerings(family).items():
        if (guess := guesses.lowering(lowering)) is not None:
            truth.append(math.log(_speedup(effect, batch)))
            guessed.append(math.log(guess.speedup))
            factors.append(abs(math.log(guess.seconds / effect.seconds)))
    ranked = sorted(range(len(truth)), key=lambda at: -guessed[at])
    first, three = (math.exp(max(truth[at] for at in ranked[:count]) - max(truth)) for count in (1, 3))
    rho = spearmanr(truth, guessed).statistic
    off = math.exp(statistics.median(factors))
    nearest = guesses.nearest()
    return f"| {family.name} | {nearest.name if nearest else '-'} | {batch} | {rho:.2f} | {first:.0%} | {three:.0%} | {off:.1f} |"


def _surprise_line(timed: int) -> str:
    """Means over both batch sizes of all families, each guessed from the others, without and with what `timed` lowerings tell."""
    off: dict[bool, list[float]] = {False: [], True: []}
    ranks: dict[bool, list[float]] = {False: [], True: []}
    known = known_families()
    for family in known.families:
        if family.traits is None:
            continue
        of_others = known.guesses(family.traits, " ".join(known.instructions), without=[family.name])
        for batch, call_ms in zip(BATCH_SIZES, family.call_ms, strict=True):
            guesses = {lowering: guess for lowering in _lowerings(family) if (guess := of_others.at(call_ms).lowering(lowering))}
            truth = {one: math.log(_speedup(effect, batch)) for one, effect in _lowerings(family).items()}
            promising = sorted(guesses, key=lambda one: guesses[one].gain / guesses[one].seconds, reverse=True)
            surprises = {one: truth[one] - math.log(guesses[one].speedup) for one in promising[:timed]}
            rest = promising[timed:]
            for learns in (False, True):
                guessed = [math.log(guesses[one].speedup) + learns * surprise_expected(one, surprises) for one in rest]
                off[learns].append(statistics.fmean(abs(found - truth[one]) for found, one in zip(guessed, rest, strict=True)))
                ranks[learns].append(spearmanr(guessed, [truth[one] for one in rest]).statistic)
    numbers = [statistics.fmean(values) for values in (off[False], off[True], ranks[False], ranks[True])]
    return f"| {timed} | {' | '.join(f'{number:.2f}' for number in numbers)} |"


def _lowerings(family: ModelFamily) -> dict[Lowering, MethodEffect]:
    pairs = ((name.split("/"), effect) for name, effect in family.effects["lowering"].items())
    return {(dtype, mode): effect for (dtype, mode), effect in pairs}


def _speedup(effect: MethodEffect, batch: int) -> float:
    return effect.speedup_small if batch == BATCH_SIZES[0] else effect.speedup_large


if __name__ == "__main__":
    main()
