"""A recipe: one point of the space, and the identity of the trial that runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

from autocut.counting import format_count

Value = str | int | float | bool
Cut = tuple[str, float]
"""(pruning method or student, fraction removed): recipes of one cut have the same structure."""
Lowering = tuple[str, str]
"""(dtype, compile mode): how the weights are stored and run. A dtype such as ``int8_static:4`` keeps 4 layers in float."""

IDENTITY: Mapping[str, Value] = MappingProxyType(
    {
        "prune.method": "none",
        "curriculum.schedule": "none",
        "distill.loss": "none",
        "train.epochs": 0,
        "train.start": "trained",
        "quantize.dtype": "fp32",
        "compile.mode": "eager",
    }
)
"""The settings of the untouched model in eager fp32. A recipe takes what it leaves out from here."""

RATIO = "prune.ratio"
RATIO_TOLD_APART = 0.01
"""Ratios that are nearer than this are two models, though they may look like one: a structure counts zeros in hundredths."""
PARENT_RATIO = "prune.parent_ratio"
"""Iterative pruning: prune to this ratio, train, prune on to `prune.ratio`, train again."""
PRUNE_WHEN = "prune.when"
"""Whether a model is cut "before_training", which then recovers from it, or "after_training". A recipe leaves the first one out."""
AFTER_TRAINING = "after_training"
STUDENT = "model.student"
"""The student of the task (`students=`) that a recipe starts from. A recipe that starts from the untouched model leaves it out."""
NO_STUDENT = "none"
KEEP_FLOAT = "quantize.keep_float"
"""How many layers stay float: those whose quantization deviates the most. A recipe leaves 0 out."""
QUANTIZATION_AWARE = "train.quantization_aware"
"""What a training rounds its products to, so that the weights bear a dtype whose name begins so. A recipe leaves "none" out."""
DECAY = "distill.decay"
"""How `distill.alpha` falls to 0 during the training: "none" (it does not) or "linear". A recipe leaves "none" out."""
FEATURES = "distill.features"
"""How what goes into the last layers of student and teacher is compared, beside their outputs. A recipe leaves "none" out."""
INPUT_GROWTH = "train.input_growth"
"""How inputs grow from a smaller size to their own over the first part of a training. A recipe leaves "none" out."""
AVERAGING = "train.ema"
"""Share of the moving average of the weights that each step keeps, such as 0.99; the average is what is trained. 0: no average."""
LABEL_SMOOTHING = "train.label_smoothing"
"""Share of the label that is spread over all classes."""
LEFT_OUT: Mapping[str, Value] = MappingProxyType(
    {
        STUDENT: NO_STUDENT,
        PRUNE_WHEN: "before_training",
        KEEP_FLOAT: 0,
        QUANTIZATION_AWARE: "none",
        DECAY: "none",
        FEATURES: "none",
        INPUT_GROWTH: "none",
        AVERAGING: 0,
        LABEL_SMOOTHING: 0,
    }
)
"""Settings that a recipe leaves out at these values, so that recipes of an earlier autocut, which lacked them, stay the same."""
SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        "prune": "prune.method",
        "train": "train.epochs",
        "curriculum": "curriculum.schedule",
        "distill": "distill.loss",
        "quantize": "quantize.dtype",
    }
)
"""The setting that switches a stage on. At the untouched model's value, the other settings of the stage have no effect."""
PREFIX_STAGES = ("model", "prune", "train", "curriculum", "distill")
LOWERING_STAGES = ("quantize", "compile")
_UNTOUCHED_LOWERING = {name: value for name, value in IDENTITY.items() if name.partition(".")[0] in LOWERING_STAGES}
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Recipe(Mapping[str, Value]):
    """Immutable settings by dotted name, such as ``{"prune.method": "structured", "prune.ratio": 0.5}``.

    Missing settings get their value from `IDENTITY`, and settings without effect (a ratio without a pruning method) are dropped. So
    two spellings of one recipe are equal and share a fingerprint.
    """

    def __init__(self, settings: Mapping[str, Value] = MappingProxyType({})) -> None:
        merged = {name: _rounded(value) for name, value in {**IDENTITY, **settings}.items()}
        if _is_off("train", merged):
            merged |= {SWITCHES[stage]: IDENTITY[SWITCHES[stage]] for stage in ("curriculum", "distill")}
        self._take({name: merged[name] for name in sorted(merged) if not _without_effect(name, merged)})

    def _take(self, settings: dict[str, Value]) -> None:
        self._settings = settings
        self._key = tuple(settings.items())

    @classmethod
    def _of(cls, settings: dict[str, Value]) -> Recipe:
        """Make a recipe from settings that are sorted, complete and rounded. It is quick: a proposal makes thousands of recipes."""
        recipe = cls.__new__(cls)
        recipe._take(settings)
        return recipe

    def __getitem__(self, name: str) -> Value:
        """Value of the setting `name`."""
        return self._settings[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the setting names in sorted order."""
        return iter(self._settings)

    def __len__(self) -> int:
        """Number of settings that have an effect."""
        return len(self._settings)

    def __hash__(self) -> int:
        """Hash of the settings."""
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same settings."""
        return isinstance(other, Recipe) and self._key == other._key

    def __repr__(self) -> str:
        """Show the settings that differ from the untouched model."""
        return f"Recipe({self.describe()})"

    def canonical_json(self) -> str:
        """Return the same text for equal recipes: sorted keys, no spaces, whole numbers without a point."""
        return _ENCODER.encode(self._settings)

    @cached_property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:12]

    def settings(self, *stages: str) -> dict[str, Value]:
        """Return the settings of the named stages, such as ``settings("prune")``."""
        return {name: value for name, value in self._settings.items() if name.partition(".")[0] in stages}

    @cached_property
    def prefix(self) -> Recipe:
        """The settings that decide the weights (prune, train, curriculum, distill), with the lowering eager fp32."""
        return Recipe._of(
            {
                name: _UNTOUCHED_LOWERING.get(name, value)
                for name, value in self._settings.items()
                if name in _UNTOUCHED_LOWERING or name.partition(".")[0] in PREFIX_STAGES
            }
        )

    @cached_property
    def parent(self) -> Recipe | None:
        """The less pruned prefix whose trained weights this recipe cuts: of iterative pruning, or not cut at all (`prunes_last`).

        None where the cut comes first.
        """
        if self.prunes_last:
            return Recipe({name: value for name, value in self.prefix.items() if name.partition(".")[0] != "prune"})
        if PARENT_RATIO not in self._settings:
            return None
        settings = {name: value for name, value in self.prefix.items() if name != PARENT_RATIO}
        return Recipe({**settings, "prune.ratio": self._settings[PARENT_RATIO]})

    @property
    def prunes_last(self) -> bool:
        """Whether the model is trained first, then pruned, and not trained after that."""
        return self._settings.get(PRUNE_WHEN) == AFTER_TRAINING

    @cached_property
    def trainings(self) -> tuple[Recipe, ...]:
        """The prefixes whose trainings make these weights, one after the other; recipes that share one of them train it once."""
        before = () if self.parent is None else self.parent.trainings
        return (*before, self.prefix) if self.is_trained and not self.prunes_last else before

    @property
    def last_trained(self) -> Recipe:
        """The prefix that the last of its trainings makes; its own where it trains nothing."""
        return self.trainings[-1] if self.trainings else self.prefix

    @property
    def lowering(self) -> Lowering:
        """(dtype, compile mode): the settings that decide how the weights are run."""
        return with_kept(str(self["quantize.dtype"]), int(self.get(KEEP_FLOAT, 0))), str(self["compile.mode"])

    def with_lowering(self, dtype: str, mode: str) -> Recipe:
        """Return the same prefix with another lowering."""
        dtype, kept = without_kept(dtype)
        if kept or KEEP_FLOAT in self._settings:
            return Recipe({**self._settings, "quantize.dtype": dtype, "compile.mode": mode, KEEP_FLOAT: kept})
        return Recipe._of({**self._settings, "quantize.dtype": dtype, "compile.mode": mode})

    @property
    def student(self) -> str | None:
        """Name of the task's own student that the recipe starts from; None: it starts from the untouched model."""
        name = self._settings.get(STUDENT)
        return None if name is None else str(name)

    @cached_property
    def cut(self) -> Cut:
        """What decides the structure: a student, or a pruning method, and the fraction that it removes."""
        if self.student is not None:
            return f"{STUDENT} {self.student}", 0.0
        return str(self["prune.method"]), float(self.get("prune.ratio", 0.0))

    @property
    def starts_trained(self) -> bool:
        """Whether a training of the recipe goes on from the untouched model's weights, after a cut or as they are."""
        return self.student is None and self._settings.get("train.start", IDENTITY["train.start"]) == IDENTITY["train.start"]

    def changes(self, name: str) -> bool:
        """Whether the method setting `name`, such as ``prune.method``, differs from the untouched model's."""
        return self[name] != IDENTITY[name]

    @property
    def is_trained(self) -> bool:
        """Whether the recipe trains the model."""
        return int(self["train.epochs"]) > 0

    def suits_dtype(self, dtype: str) -> bool:
        """Whether the training is of use for `dtype`: a quantization-aware one is for the dtypes that its name begins."""
        return dtype.startswith(str(self.get(QUANTIZATION_AWARE, "")))

    @property
    def all_epochs(self) -> int:
        """How many epochs the model was trained on, those of the parent of an iteratively pruned child included."""
        return sum(int(training["train.epochs"]) for training in self.trainings)

    @property
    def untouched_trained_alike(self) -> Recipe:
        """The untouched model trained for all these epochs at the same learning rate, and not cut: what training alone brings.

        A student does not train the untouched model on, so beside it the untouched model stands as it is.
        """
        if self.student is not None:
            return UNTOUCHED
        settings = {name: value for name, value in self.settings("train").items() if name not in (QUANTIZATION_AWARE, INPUT_GROWTH)}
        return Recipe({**settings, "train.epochs": self.all_epochs})

    @property
    def only_trains_on(self) -> bool:
        """Whether the recipe does nothing but train the untouched model on, as people do by hand."""
        return self.is_trained and self == self.untouched_trained_alike

    def describe(self) -> str:
        """Return one short line with the changed settings, such as ``structured 0.5 + 4 epochs + int8_static + onnxruntime``."""
        return " + ".join(_words(self)) or "untouched"


def baseline_words(recipe: Recipe) -> str:
    """Return what kind of baseline `recipe` is, for people who read a list of trials."""
    if not recipe.only_trains_on:
        return "baseline"
    word = "epoch" if recipe["train.epochs"] == 1 else "epochs"
    how = f"{word} from scratch" if recipe.changes("train.start") else f"more {word}"
    return f"baseline: untouched, trained {recipe['train.epochs']} {how}"


def with_kept(dtype: str, kept: int) -> str:
    """Return how a lowering spells `dtype` with `kept` layers in float: ``int8_static:4``."""
    return f"{dtype}:{kept}" if kept else dtype


def without_kept(dtype: str) -> tuple[str, int]:
    """Return the dtype of a lowering, as it is registered, and how many layers it keeps in float."""
    name, _, kept = dtype.partition(":")
    return name, int(kept or 0)


def changed_settings(recipe: Recipe) -> dict[str, Value]:
    """Return the settings in which `recipe` differs from the untouched model."""
    return {name: value for name, value in recipe.items() if IDENTITY.get(name) != value}


def _rounded(value: Value) -> Value:
    """Drop the last digits of a float: a sampler that adds steps of 0.1 gets 0.30000000000000004, a person writes 0.3.

    A whole number becomes an integer, because the study gives it back as one, and its stage keys must not change.
    """
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded


def _without_effect(name: str, settings: Mapping[str, Value]) -> bool:
    if name in (PARENT_RATIO, PRUNE_WHEN) and _is_off("train", settings):
        return True
    if name == PARENT_RATIO and settings.get(PRUNE_WHEN) == AFTER_TRAINING:
        return True  # nothing is trained between two cuts
    if name == PARENT_RATIO and float(settings[name]) >= float(settings.get("prune.ratio", 0)):
        return True
    if name in LEFT_OUT and settings[name] == LEFT_OUT[name]:
        return True
    if name == "train.start" and settings.get(STUDENT, NO_STUDENT) != NO_STUDENT:
        return True  # a student has only the weights that it was built with
    stage = name.partition(".")[0]
    return stage in SWITCHES and name != SWITCHES[stage] and _is_off(stage, settings)


def _is_off(stage: str, settings: Mapping[str, Value]) -> bool:
    return settings[SWITCHES[stage]] == IDENTITY[SWITCHES[stage]]


def _words(recipe: Recipe) -> Iterable[str]:
    if recipe.student is not None:
        yield f"student {recipe.student}"
    pruned = f"{recipe['prune.method']} {recipe.get('prune.ratio', '')}".strip()
    if recipe.changes("prune.method") and not recipe.prunes_last:
        yield pruned + (f" after {recipe[PARENT_RATIO]}" if PARENT_RATIO in recipe else "")
    if recipe.is_trained:
        start = " from scratch" if recipe.get("train.start") == "scratch" else ""
        extras = _number(recipe, AVERAGING, " ema ") + _number(recipe, LABEL_SMOOTHING, " smoothing ")
        aware = f" aware of {recipe[QUANTIZATION_AWARE]}" if QUANTIZATION_AWARE in recipe else ""
        aware += f" with {recipe[INPUT_GROWTH]}" if INPUT_GROWTH in recipe else ""
        yield (
            format_count(int(recipe["train.epochs"]), "epoch") + start + aware + _number(recipe, "train.lr_scale", " lr x") + extras
        )
        if recipe.changes("curriculum.schedule"):
            order = f"{recipe['curriculum.schedule']} {recipe.get('curriculum.order', '')}".strip()
            yield f"curriculum {order}" + _number(recipe, "curriculum.start", " from ")
        if recipe.changes("distill.loss"):
            strength = _number(recipe, "distill.temperature", " T=") + _number(recipe, "distill.alpha", " alpha=")
            strength += " to 0" if DECAY in recipe else ""
            strength += f" and {recipe[FEATURES]} of features" if FEATURES in recipe else ""
            yield f"distill {recipe['distill.loss']}{strength}"
    if recipe.prunes_last:
        yield f"{pruned} after training"
    if recipe.changes("quantize.dtype"):
        yield f"{recipe['quantize.dtype']}" + (
            f" but {format_count(int(recipe[KEEP_FLOAT]), 'layer')}" if KEEP_FLOAT in recipe else ""
        )
    if recipe.changes("compile.mode"):
        yield str(recipe["compile.mode"])


def _number(recipe: Recipe, name: str, label: str) -> str:
    return f"{label}{float(recipe[name]):.3g}" if name in recipe else ""


UNTOUCHED = Recipe()
"""The recipe that changes nothing."""
