"""One sentence on which knob of a trial bought what, from what is measured already. Nothing is measured for it, and no torch.

`autocut search` ends with it, and `autocut select` prints it. `autocut explain` says the same with all numbers and intervals.
"""

from __future__ import annotations

from pathlib import Path

from autocut.attribution.evidence import Evidence
from autocut.attribution.ladder import Ladder, LadderStep, build_ladder
from autocut.attribution.turned import knobs_of
from autocut.attribution.words import say_briefly
from autocut.recipe import UNTOUCHED, Recipe


def knob_sentence(evidence: Evidence, folder: Path, trial: int, recipe: Recipe) -> str:
    """Say which knob of `recipe`, the measured recipe of `trial` of the study in `folder`, bought what.

    The speed is that of one process. Steps whose rungs are not measured are told together. What their knobs do alone is told where
    that was measured.
    """
    knobs = knobs_of(recipe)
    if not knobs:
        return f"trial {trial} is the untouched model"
    if UNTOUCHED not in evidence.known or recipe not in evidence.known:
        return f"trial {trial} is {recipe.describe()}"
    ladder = build_ladder(recipe, evidence.known, evidence.pairs)
    is_share = 0 <= evidence.known[UNTOUCHED].values["accuracy"] <= 1
    whole = say_briefly(ladder.whole, is_share=is_share, whose_speed=" as one process")
    if len(knobs) == 1:
        return f"trial {trial} is {recipe.describe()} alone: {whole}"
    parts = [f"trial {trial} is {recipe.describe()}: {whole}"]
    if len(ladder.steps) > 1:
        parts.append(f"step by step: {', then '.join(_step(step, is_share=is_share) for step in ladder.steps)}")
    if alone := _alone(ladder, evidence, is_share=is_share):
        parts.append(f"alone: {alone}")
    if len(ladder.steps) < len(knobs):
        parts.append(f"each knob apart: autocut explain {folder} {trial}")
    return "; ".join(parts)


def _step(step: LadderStep, *, is_share: bool) -> str:
    together = " together" if len(step.stages) > 1 else ""
    return f"{step.name}{together} ({say_briefly(step.effect, is_share=is_share)})"


def _alone(ladder: Ladder, evidence: Evidence, *, is_share: bool) -> str:
    """Say what those knobs do alone, on the untouched model, that have no step of their own."""
    own = {step.stages[0] for step in ladder.steps if len(step.stages) == 1}
    told = []
    for knob in knobs_of(ladder.recipe):
        if knob.stage in own or knob.base not in evidence.known or knob.alone not in evidence.known:
            continue
        single = build_ladder(knob.alone, evidence.known, evidence.pairs).steps[-1]
        told.append(_step(single, is_share=is_share))
    return ", ".join(told)
