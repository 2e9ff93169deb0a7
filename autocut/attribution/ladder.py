"""The ladder from the untouched model to a recipe, one knob a step, from what was measured. Arithmetic only, no torch.

The steps of a ladder always multiply to the whole, because each starts where the last one ended. But a knob may do less after
others than alone. So each knob is also compared with itself alone on the untouched model, and what the knobs do alone, all
together, with the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from autocut.attribution.effects import Effect, LadderRung, agree, combined, distance, effect_between
from autocut.attribution.turned import TurnedKnob, knobs_of, longer_trained
from autocut.measurement import Interval
from autocut.recipe import UNTOUCHED, Recipe

Pairs = Mapping[tuple[Recipe, Recipe], Interval]
"""(before, after) -> difference of the metric on the same examples."""


@dataclass(frozen=True)
class LadderStep:
    """One step: the knobs that were turned (as a rule one), the rung that it leads to, and what it bought.

    A step over a rung that was not measured turns several knobs. `apart` is what the same knobs do alone on the untouched model;
    None where that was not measured. `interacts` says whether they surely do something else here than alone.
    """

    name: str
    stages: tuple[str, ...]
    rung: LadderRung
    effect: Effect
    apart: Effect | None
    interacts: bool

    @property
    def bought_nothing(self) -> bool:
        """Whether nothing became better for sure."""
        return self.effect.buys_nothing


@dataclass(frozen=True)
class Ladder:
    """The steps from the untouched model to `recipe`.

    `whole` is the effect of all of them, measured directly. `apart` is what the knobs do alone, combined; None where one of them
    was not measured alone. `longer_training` is the effect of training the untouched model as long as the recipe,
    `beyond_training` that of the recipe against this; None where it was not measured.
    """

    recipe: Recipe
    steps: tuple[LadderStep, ...]
    whole: Effect
    apart: Effect | None
    longer_training: Effect | None
    beyond_training: Effect | None

    @property
    def knobs_multiply(self) -> bool | None:
        """Whether the whole may be what the knobs do alone, combined; None where that is not known."""
        return None if self.apart is None else agree(self.whole, self.apart)

    @property
    def interacting(self) -> tuple[LadderStep, ...]:
        """The steps that surely do something else here than alone.

        Small differences of several knobs may add up: then the knobs do not multiply, but no single step is sure. The one that
        differs most is taken.
        """
        sure = tuple(step for step in self.steps if step.interacts)
        compared = [(distance(step.effect, step.apart), step) for step in self.steps if step.apart is not None]
        if sure or self.knobs_multiply is not False or not compared:
            return sure
        return (max(compared, key=lambda pair: pair[0])[1],)


def build_ladder(recipe: Recipe, known: Mapping[Recipe, LadderRung], pairs: Pairs) -> Ladder:
    """Build the ladder to `recipe` from what is known. It must know `recipe` and the untouched model."""

    def effect(before: Recipe, after: Recipe) -> Effect:
        return effect_between(known[before], known[after], pairs.get((before, after)))

    knobs = knobs_of(recipe)
    alone = {knob.name: effect(knob.base, knob.alone) for knob in knobs if knob.base in known and knob.alone in known}
    steps: list[LadderStep] = []
    before, turned = UNTOUCHED, list[TurnedKnob]()
    for knob in knobs:
        turned.append(knob)
        if knob.rung not in known:
            continue
        name, stages = " + ".join(one.name for one in turned), tuple(one.stage for one in turned)
        here, apart = effect(before, knob.rung), _together(turned, alone)
        interacts = apart is not None and not agree(here, apart, pairs=len(knobs))
        steps.append(LadderStep(name, stages, known[knob.rung], here, apart, interacts))
        before, turned = knob.rung, []
    longer = longer_trained(recipe)
    longer = longer if longer in known else None
    return Ladder(
        recipe,
        tuple(steps),
        effect(UNTOUCHED, recipe),
        _together(knobs, alone),
        effect(UNTOUCHED, longer) if longer else None,
        effect(longer, recipe) if longer else None,
    )


def wanted_recipes(recipe: Recipe) -> tuple[Recipe, ...]:
    """Return every recipe that the whole ladder to `recipe` needs. What is more telling comes first."""
    knobs = knobs_of(recipe)
    longer = longer_trained(recipe)
    asked = [UNTOUCHED, recipe, *(knob.rung for knob in knobs), *([longer] if longer else [])]
    return tuple(dict.fromkeys([*asked, *(side for knob in knobs for side in (knob.base, knob.alone))]))


def wanted_pairs(recipe: Recipe, known: Mapping[Recipe, LadderRung]) -> tuple[tuple[Recipe, Recipe], ...]:
    """Return the pairs of known recipes whose accuracies the ladder compares, but those with the untouched model.

    Every measured recipe was compared with the untouched model on the same examples already.
    """
    knobs = knobs_of(recipe)
    rungs = [UNTOUCHED, *(knob.rung for knob in knobs if knob.rung in known)]
    pairs = [*itertools.pairwise(rungs), *((knob.base, knob.alone) for knob in knobs)]
    longer = longer_trained(recipe)
    pairs += [(longer, recipe)] if longer else []
    return tuple(
        (before, after)
        for before, after in dict.fromkeys(pairs)
        if before in known and after in known and before not in (UNTOUCHED, after)
    )


def _together(knobs: list[TurnedKnob] | tuple[TurnedKnob, ...], alone: Mapping[str, Effect]) -> Effect | None:
    if not knobs or any(knob.name not in alone for knob in knobs):
        return None
    return combined(alone[knob.name] for knob in knobs)
