"""The last lines of a search: which model to take, why, and what it saves."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from autocut.attribution.evidence import read_evidence
from autocut.attribution.knobs import knob_sentence
from autocut.attribution.weak_axes import weak_axes_sentence
from autocut.bill import bill_lines
from autocut.console import Console
from autocut.counting import format_count
from autocut.deploy.select import select_from_study, untouched
from autocut.front import FrontPoint
from autocut.recipe import UNTOUCHED
from autocut.study import Study


def conclude(study: Study, console: Console) -> int:
    """Tell what the search has left, and return the exit code: 0, or 1 where there is no verified bundle."""
    bundles = [point for point in study.points() if point.bundle]
    if not bundles:
        console.info(f"no verified bundle yet: give it more time with a longer --budget, or see: autocut front {study.folder}")
        return 1
    front = {point.trial for point in study.front()}
    on_front = sum(point.trial in front for point in bundles)
    console.remark(f"{format_count(on_front, 'verified bundle')} on the front. {_recommended(study)}")
    if not on_front:
        best = min(bundles, key=lambda point: point.values["usd_per_million"])
        console.info(f"the cheapest bundle that there is, behind the front: trial {best.trial}, {best.bundle}")
    elif others := _in_other_runtimes(bundles, front):
        console.info(f"verified too, behind the front, in other runtimes: {others} (autocut front {study.folder} --all)")
    console.info(f"next: autocut front {study.folder}   |   autocut select {study.folder}")
    return 0


def _in_other_runtimes(bundles: Sequence[FrontPoint], front: Collection[int]) -> str:
    """Name the cheapest bundle of each compile mode that no bundle on the front has; empty where there is none.

    It is beaten by the numbers, but what runs it may be what a person has: a process with torch, say, and no OpenVINO.
    """
    modes = {point.recipe.lowering[1] for point in bundles if point.trial in front}
    cheapest: dict[str, FrontPoint] = {}
    for point in sorted(bundles, key=lambda point: point.values["usd_per_million"]):
        if (mode := point.recipe.lowering[1]) not in modes:
            cheapest.setdefault(mode, point)
    return "; ".join(
        f"trial {point.trial}, {point.recipe.describe()}, {point.values['speedup']:.2f}x as fast" for point in cheapest.values()
    )


def _recommended(study: Study) -> str:
    """The point that most people should take, why, what the test split has against it, which knobs made it, and its bill."""
    selection = select_from_study(study)
    chosen = selection.point
    evidence = read_evidence(study)
    is_untouched = chosen.recipe == UNTOUCHED  # the reason has said so
    knobs = "" if is_untouched else knob_sentence(evidence, study.folder, chosen.trial, chosen.recipe)
    said = [selection.doubt, knobs, weak_axes_sentence(evidence)]
    lines = [f"Trial {chosen.trial}: {selection.reason}", *filter(None, said)]
    bill = bill_lines(study.facts, study.paid_s(), untouched(study.points()), chosen)
    return "\n".join([*lines, *(f"  {line}" for line in bill)])
