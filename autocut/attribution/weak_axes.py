"""Which axes of a search brought nothing for sure, by all pairs of its trials that differ in one axis alone. No torch.

A pair is a recipe and the same recipe without one of its cuts: both have the same everything else. Where no pair shows better
accuracy, speed or size for sure, the axis brought nothing in this study. That is no proof that it never helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from types import MappingProxyType

from autocut.attribution.effects import Effect, effect_between
from autocut.attribution.evidence import Evidence
from autocut.counting import format_count
from autocut.measurement import Interval
from autocut.recipe import IDENTITY, NO_STUDENT, STUDENT, Recipe

FEWEST_PAIRS = 3
"""Fewer pairs say nothing of an axis."""
_AXES: Mapping[str, str] = MappingProxyType(
    {
        "prune": "pruning",
        "train": "training",
        "curriculum": "curriculum",
        "distill": "distillation",
        "quantize": "narrower dtypes",
        "compile": "compile modes",
    }
)
"""Stages that can be taken out of a recipe, in the words of a person."""
_ERROR = 0.05
_NORMAL = NormalDist()


@dataclass(frozen=True)
class AxisVerdict:
    """What the pairs of one axis say: in how many of `pairs` something became better for sure."""

    stage: str
    pairs: int
    better: int

    @property
    def brought_nothing(self) -> bool:
        """Whether enough pairs were compared, and none became better for sure."""
        return self.pairs >= FEWEST_PAIRS and not self.better


def axis_verdicts(evidence: Evidence) -> tuple[AxisVerdict, ...]:
    """Compare each trial with the same recipe without one of its axes, where that was measured too.

    The more pairs are compared, the more often one of them looks better by chance. So all pairs of an axis share one error of 5%
    (Bonferroni).
    """
    verdicts = []
    for stage in _AXES:
        effects = list(_effects(evidence, stage))
        better = sum(not _widened(effect, len(effects)).buys_nothing for effect in effects)
        verdicts.append(AxisVerdict(stage, len(effects), better))
    return tuple(verdicts)


def weak_axes_sentence(evidence: Evidence) -> str:
    """Name the axes that brought nothing in this study, with the number of comparisons; empty where each brought something."""
    weak = [verdict for verdict in axis_verdicts(evidence) if verdict.brought_nothing]
    if not weak:
        return ""
    told = ", ".join(f"{_AXES[verdict.stage]} ({format_count(verdict.pairs, 'comparison')})" for verdict in weak)
    return f"brought nothing for sure in this study: {told}"


def _effects(evidence: Evidence, stage: str) -> Iterator[Effect]:
    for recipe, rung in evidence.known.items():
        without = _without(recipe, stage)
        if without is not None and without in evidence.known:
            yield effect_between(evidence.known[without], rung, evidence.pairs.get((without, recipe)))


def _without(recipe: Recipe, stage: str) -> Recipe | None:
    """Return `recipe` without the cut of `stage`; None where it has none.

    A dtype is compared in its own compile mode. A mode is compared in the same dtype, as far as eager has it. A pruned model is
    compared with the untouched one that was trained alike.
    """
    kept = {name: value for name, value in recipe.items() if name.partition(".")[0] != stage}
    plain = Recipe({**kept, **{name: value for name, value in IDENTITY.items() if name.partition(".")[0] == stage}})
    return None if plain == recipe or recipe.get(STUDENT, NO_STUDENT) != NO_STUDENT else plain


def _widened(effect: Effect, pairs: int) -> Effect:
    """Widen the intervals of one of `pairs` effects, so that all of them share one error."""
    wider = _NORMAL.inv_cdf(1 - _ERROR / (2 * pairs)) / _NORMAL.inv_cdf(1 - _ERROR / 2)
    return replace(effect, accuracy=_wide(effect.accuracy, wider), speedup=_wide(effect.speedup, wider))


def _wide(interval: Interval, wider: float) -> Interval:
    value = interval.value
    return Interval(value, value - wider * (value - interval.low), value + wider * (interval.high - value))
