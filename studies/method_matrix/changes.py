"""The changes that the matrix measures: every registered method of every axis, one at a time, from the untouched model.

prune ........ each pruner, and nothing after it
recover ...... each pruner, then a training of the family's epochs
train ........ that training alone: what every change that trains is compared with
aware ........ that training aware of a dtype, and without that, both run in the dtype
growth ....... that training with inputs that grow
curriculum ... that training with each schedule in each order
distill ...... that training with each distillation loss
lowering ..... each dtype with each compile mode

There is no list of methods here: a method that is registered has its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from autocut.recipe import FEATURES, INPUT_GROWTH, LEFT_OUT, QUANTIZATION_AWARE, UNTOUCHED, Recipe
from autocut.stages.lowering import infeasible_reason
from autocut.stages.methods import registry

AXES = ("train", "prune", "recover", "aware", "growth", "curriculum", "distill", "lowering")
PRUNE_RATIO = 0.5
CURRICULUM_START = 0.3
TEMPERATURE, ALPHA = 4.0, 0.5


@dataclass(frozen=True)
class Change:
    """One row of the matrix: a recipe, and the axis and the method that it is the row of.

    `training` is the recipe of the same training without the change; None where the change does not train.
    """

    axis: str
    method: str
    recipe: Recipe
    training: Recipe | None = None


def changes_of(axes: Iterable[str], epochs: int) -> list[Change]:
    """List the changes of `axes`, the untouched model first. A change that trains does so for `epochs`."""
    training = Recipe({"train.epochs": epochs})
    makers = {
        "train": lambda: [Change("train", "training alone", training)],
        "prune": _prunings,
        "recover": lambda: _recoveries(training),
        "aware": lambda: _aware(training),
        "growth": lambda: _growths(training),
        "curriculum": lambda: _curricula(training),
        "distill": lambda: _distillations(training),
        "lowering": _lowerings,
    }
    return [Change("untouched", "untouched", UNTOUCHED), *(change for axis in AXES if axis in axes for change in makers[axis]())]


def _prunings() -> Iterator[Change]:
    for method in _changing("prune.method"):
        yield Change("prune", method, Recipe({"prune.method": method, "prune.ratio": PRUNE_RATIO}))


def _recoveries(training: Recipe) -> Iterator[Change]:
    for change in _prunings():
        yield Change("recover", change.method, _joined(training, change.recipe), training)


def _aware(training: Recipe) -> Iterator[Change]:
    """List the quantization-aware trainings, each with the first dtype that it suits, in the quickest mode that runs it here."""
    modes = sorted(registry("compile.mode"), key=lambda mode: mode.options.seconds)
    for method in _changing(QUANTIZATION_AWARE):
        recipe = Recipe({**training, QUANTIZATION_AWARE: method})
        pairs = [(dtype, mode.name) for dtype in registry("quantize.dtype").names() for mode in modes]
        suited = next(pair for pair in pairs if recipe.suits_dtype(pair[0]) and infeasible_reason(*pair) is None)
        yield Change("aware", method, recipe.with_lowering(*suited), training.with_lowering(*suited))


def _growths(training: Recipe) -> Iterator[Change]:
    for method in _changing(INPUT_GROWTH):
        yield Change("growth", method, _joined(training, {INPUT_GROWTH: method}), training)


def _curricula(training: Recipe) -> Iterator[Change]:
    for schedule in _changing("curriculum.schedule"):
        for order in registry("curriculum.order").names():
            settings = {"curriculum.schedule": schedule, "curriculum.order": order, "curriculum.start": CURRICULUM_START}
            yield Change("curriculum", f"{schedule} {order}", _joined(training, settings), training)


def _distillations(training: Recipe) -> Iterator[Change]:
    for loss in _changing("distill.loss"):
        settings = {"distill.loss": loss, "distill.temperature": TEMPERATURE, "distill.alpha": ALPHA}
        yield Change("distill", loss, _joined(training, settings), training)
    for features in _changing(FEATURES):
        settings = {"distill.loss": "kl", "distill.temperature": TEMPERATURE, "distill.alpha": ALPHA, FEATURES: features}
        yield Change("distill", f"kl and {features} of features", _joined(training, settings), training)


def _lowerings() -> Iterator[Change]:
    """List the pairs of dtype and mode, the modes that take the fewest seconds first: compilers of minutes wait for the rest."""
    modes = registry("compile.mode")
    for mode in sorted(modes, key=lambda mode: mode.options.seconds):
        for dtype in registry("quantize.dtype").names():
            recipe = Recipe({"quantize.dtype": dtype, "compile.mode": mode.name})
            if recipe != UNTOUCHED:
                yield Change("lowering", f"{mode.name} {dtype}", recipe)


def _changing(axis: str) -> list[str]:
    """List the methods of `axis` without the one that changes nothing."""
    return [name for name in registry(axis).names() if name != UNTOUCHED.get(axis, LEFT_OUT.get(axis))]


def _joined(training: Recipe, settings: Mapping[str, object]) -> Recipe:
    changed = {name: value for name, value in settings.items() if UNTOUCHED.get(name) != value}
    return Recipe({**training, **changed})  # type: ignore[dict-item]  # values of settings
