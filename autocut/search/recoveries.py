"""The first trainings of what was cut: of the pruned models that promise the most by what they cost and what they have kept.

What a model keeps right after a cut ranks cuts well (Li et al. 2020, EagleEye, https://arxiv.org/abs/2007.02491), and each was
measured to know its cost. A proposal hits upon such a training late: its epochs, its teacher and its cut must come together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autocut.recipe import RATIO, UNTOUCHED, Recipe
from autocut.search.anchor_choice import suited_anchors
from autocut.search.estimates import ExpectedCost, on_ladder, recipe_s
from autocut.search.finalists import is_slow
from autocut.search.jobs import PlannedJob, Purpose
from autocut.search.lowerings import LoweringChoice
from autocut.search.state import SearchState
from autocut.search.volume import Volume

_MOST = 3
"""Models that are recovered before anything is proposed."""
_SHARE = 0.1
"""Share of the workers' whole time that their trainings may take together."""
_REGAINED = 0.5
"""Share of the lost accuracy that a training is expected to bring back."""


@dataclass(frozen=True)
class _Recovery:
    """A training of a cut that was measured as it is, what it has kept, and the values that it is expected to reach."""

    recipe: Recipe
    kept: float
    expected: Mapping[str, float]


def recoveries(state: SearchState, choice: LoweringChoice) -> Iterator[PlannedJob | None]:
    """Yield the trainings that promise the most hypervolume per second, one after the other; None while cuts are still measured.

    Each is trained as the anchor is whose cut is the most like it. Later ones count what the earlier ones are expected to reach.
    """
    while state.runs(Purpose.COST_FIRST) and not is_slow(state):
        yield None  # a slow model's workers go by what is known
    left_s = _SHARE * state.settings.budget_s * state.settings.workers
    chosen: list[_Recovery] = []
    while len(chosen) < _MOST and (best := _best(state, chosen, left_s)) is not None:
        chosen.append(best)
        left_s -= recipe_s(state, best.recipe)
        why = f"recover: {best.recipe.prefix.describe()}, whose cut has kept {best.kept:.4g}"
        yield PlannedJob(choice.with_siblings(best.recipe), Purpose.ANCHOR, why)


def _best(state: SearchState, chosen: Sequence[_Recovery], left_s: float) -> _Recovery | None:
    """The training that promises the most per second beside those that are `chosen`; None where none promises anything."""
    untouched = state.finished.get(UNTOUCHED)
    if untouched is None:
        return None
    front = [*state.front.values.values(), *(one.expected for one in chosen)]
    volume = Volume(state.settings.objectives, untouched, front, state.allowed_drop)
    before = volume.of(volume.losses_of(front))
    taken = {one.recipe.prefix for one in chosen}
    best, most = None, 0.0
    for one in _possible(state, untouched["accuracy"]):
        seconds = recipe_s(state, one.recipe)
        if seconds > left_s or one.recipe.prefix in taken:
            continue
        promised = (volume.of(volume.losses_of([*front, one.expected])) - before) / max(seconds, 1.0)
        if promised > most:
            best, most = one, promised
    return best


def _possible(state: SearchState, untouched: float) -> Iterator[_Recovery]:
    """Every cut that was measured as it is and has lost accuracy beyond the noise, trained as the nearest anchor."""
    anchors = [anchor for anchor in suited_anchors(state) if anchor.is_trained and anchor.student is None and RATIO in anchor]
    cost = ExpectedCost(state)
    for cut, values in state.finished.items():
        kept = values["accuracy"]
        if not anchors or cut.is_trained or RATIO not in cut or kept >= untouched - state.metric_noise:
            continue
        nearest = min(anchors, key=lambda anchor: abs(anchor.cut[1] - cut.cut[1]))
        recipe = on_ladder(state, Recipe({**cut, **nearest.settings("train", "curriculum", "distill")}))
        is_possible = state.settings.space.contains(recipe) and recipe.suits_dtype(recipe.lowering[0])
        if is_possible and not (state.is_settled(recipe) or state.is_in_training(recipe.prefix)):
            yield _Recovery(recipe, kept, {**values, **cost(recipe), "accuracy": kept + _REGAINED * (untouched - kept)})
