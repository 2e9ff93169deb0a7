"""The knobs that a recipe turns, and the recipes that tell what each of them does. No torch.

The knobs come in the order in which a pipeline works: student, prune, train, curriculum, distillation; or prune after these three.
Then comes the compile mode, and the dtype last, because a dtype such as int8 is real only in a mode that has kernels for it. A
student and its training are one knob: without the training it answers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autocut.recipe import UNTOUCHED, Recipe, Value

_STUDENT, _TRAINING, _MODE = "model", "train", "compile"
_ORDER = (_STUDENT, "prune", _TRAINING, "curriculum", "distill", _MODE, "quantize")
_PRUNED_LAST = (_STUDENT, _TRAINING, "curriculum", "distill", "prune", _MODE, "quantize")
_METHODS = {"prune": "prune.method", "curriculum": "curriculum.schedule", "distill": "distill.loss", _MODE: "compile.mode",
            "quantize": "quantize.dtype"}  # fmt: skip
_NEEDS: Mapping[str, str] = MappingProxyType({"curriculum": _TRAINING, "distill": _TRAINING, "quantize": _MODE})
"""A knob that means nothing, or something else, without another one. It is turned "alone" on top of that one."""


@dataclass(frozen=True)
class TurnedKnob:
    """One knob that a recipe turns. `name` is for people, such as ``structured 0.5``.

    `rung` is the recipe that turns this knob and all before it. `alone` turns this knob only, `base` none; both also have what this
    knob needs: a curriculum needs a training, a dtype runs in the recipe's compile mode. A training alone has all epochs that the
    model saw, those of the parent of an iteratively pruned child included.
    """

    stage: str
    name: str
    rung: Recipe
    alone: Recipe
    base: Recipe


def knobs_of(recipe: Recipe) -> tuple[TurnedKnob, ...]:
    """Return the knobs that `recipe` turns, in the order of the ladder. The last rung is `recipe` itself."""
    turned = [stage for stage in (_PRUNED_LAST if recipe.prunes_last else _ORDER) if _is_turned(recipe, stage)]
    knobs: list[TurnedKnob] = []
    settings: dict[str, Value] = {}
    for stage in turned:
        settings |= _own_settings(recipe, stage)
        need = _NEEDS.get(stage)
        if need == _TRAINING and recipe.student is not None:
            need = _STUDENT
        needed = _by_itself(recipe, need) if need in turned else {}
        base, alone = Recipe(needed), Recipe({**needed, **_by_itself(recipe, stage)})
        name = _new_words(base, alone) + (" after training" if stage == "prune" and recipe.prunes_last else "")
        knobs.append(TurnedKnob(stage, name, Recipe(settings), alone, base))
    return tuple(knobs)


def longer_trained(recipe: Recipe) -> Recipe | None:
    """Return the untouched model trained as long as `recipe`; None where that trains nothing, or is the recipe itself."""
    trained = recipe.untouched_trained_alike
    return None if trained in (UNTOUCHED, recipe) or not recipe.is_trained else trained


def _by_itself(recipe: Recipe, stage: str) -> dict[str, Value]:
    """Return the settings of one stage as they are without pruning: there is no parent, so one training has all epochs."""
    own = _own_settings(recipe, stage)
    return {**own, **recipe.untouched_trained_alike.settings(stage)} if stage == _TRAINING else own


def _own_settings(recipe: Recipe, stage: str) -> dict[str, Value]:
    """Return the settings that turn one knob."""
    return recipe.settings(_STUDENT, _TRAINING) if stage == _STUDENT else recipe.settings(stage)


def _is_turned(recipe: Recipe, stage: str) -> bool:
    if recipe.student is not None and stage in (_STUDENT, _TRAINING):
        return stage == _STUDENT
    if stage == _STUDENT:
        return False
    return recipe.is_trained if stage == _TRAINING else recipe.changes(_METHODS[stage])


def _new_words(base: Recipe, alone: Recipe) -> str:
    known = base.describe().split(" + ")
    return " + ".join(word for word in alone.describe().split(" + ") if word not in known)
