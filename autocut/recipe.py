"""A recipe: one point of the space, and the identity of the trial that runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

Value = str | int | float | bool
Lowering = tuple[str, str]
"""A dtype and a compile mode: how weights are run."""

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
"""What a recipe does where it says nothing: the untouched model in eager fp32."""

PARENT_RATIO = "prune.parent_ratio"
"""Pruned to this ratio and trained first, then pruned on to `prune.ratio` and trained again: iterative pruning."""
PREFIX_STAGES = ("prune", "train", "curriculum", "distill")
LOWERING_STAGES = ("quantize", "compile")
_UNTOUCHED_LOWERING = {name: value for name, value in IDENTITY.items() if name.partition(".")[0] in LOWERING_STAGES}
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Recipe(Mapping[str, Value]):
    """Immutable settings by dotted name, such as ``{"prune.method": "structured", "prune.ratio": 0.5}``.

    Missing axes take their value from `IDENTITY`, so two spellings of one recipe are equal and share a fingerprint.
    Settings without effect (a ratio without a pruning method) are dropped for the same reason.
    """

    def __init__(self, settings: Mapping[str, Value] = MappingProxyType({})) -> None:
        merged = {name: _rounded(value) for name, value in {**IDENTITY, **settings}.items()}
        if merged["train.epochs"] == 0:
            merged |= {"curriculum.schedule": "none", "distill.loss": "none"}
        self._take({name: merged[name] for name in sorted(merged) if not _without_effect(name, merged)})

    def _take(self, settings: dict[str, Value]) -> None:
        self._settings = settings
        self._key = tuple(settings.items())

    @classmethod
    def _of(cls, settings: dict[str, Value]) -> Recipe:
        """Make a recipe of settings that are in order, complete and rounded: a search makes thousands of them for a proposal."""
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
        """Equal when both do the same."""
        return isinstance(other, Recipe) and self._key == other._key

    def __repr__(self) -> str:
        """Show the settings that differ from the untouched model."""
        return f"Recipe({self.describe()})"

    def canonical_json(self) -> str:
        """One spelling for equal recipes: sorted keys, no spaces, whole numbers without a point."""
        return _ENCODER.encode(self._settings)

    @property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:12]

    def settings(self, *stages: str) -> dict[str, Value]:
        """Settings of the named stages only, such as ``settings("prune")``."""
        return {name: value for name, value in self._settings.items() if name.partition(".")[0] in stages}

    @cached_property
    def prefix(self) -> Recipe:
        """The part that decides the weights: prune, train, curriculum, distill; the lowering is eager fp32."""
        return Recipe._of(
            {
                name: _UNTOUCHED_LOWERING.get(name, value)
                for name, value in self._settings.items()
                if name in _UNTOUCHED_LOWERING or name.partition(".")[0] in PREFIX_STAGES
            }
        )

    @cached_property
    def parent(self) -> Recipe | None:
        """The less pruned prefix, trained in the same way, whose weights this one starts from; None where there is none."""
        if PARENT_RATIO not in self._settings:
            return None
        settings = {name: value for name, value in self.prefix.items() if name != PARENT_RATIO}
        return Recipe({**settings, "prune.ratio": self._settings[PARENT_RATIO]})

    @property
    def lowering(self) -> Lowering:
        """(dtype, compile mode): the part that decides how the weights are run."""
        return str(self["quantize.dtype"]), str(self["compile.mode"])

    def with_lowering(self, dtype: str, mode: str) -> Recipe:
        """Return the same prefix with another lowering."""
        return Recipe._of({**self._settings, "quantize.dtype": dtype, "compile.mode": mode})

    def changes(self, name: str) -> bool:
        """Whether the method setting `name`, such as ``prune.method``, is another one than the untouched model's."""
        return self[name] != IDENTITY[name]

    @property
    def is_trained(self) -> bool:
        """Whether the recipe trains at all beyond the task's own model."""
        return int(self["train.epochs"]) > 0

    def describe(self) -> str:
        """One short line with the knobs that are turned, such as ``structured 0.5 + 4 epochs + int8_static + onnxruntime``."""
        return " + ".join(_words(self)) or "untouched"


def changed_settings(recipe: Recipe) -> dict[str, Value]:
    """Settings in which `recipe` differs from the untouched model."""
    return {name: value for name, value in recipe.items() if IDENTITY.get(name) != value}


def _rounded(value: Value) -> Value:
    """Drop the last digits of a float: a sampler that counts up steps of 0.1 gets 0.30000000000000004, a person writes 0.3.

    A whole number becomes an integer, as it is read back from the study: stage keys must be the same before and after.
    """
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded


def _without_effect(name: str, settings: Mapping[str, Value]) -> bool:
    stage, _, field = name.partition(".")
    if name == PARENT_RATIO and (settings["train.epochs"] == 0 or float(settings[name]) >= float(settings.get("prune.ratio", 0))):
        return True
    if stage == "prune" and field != "method":
        return settings["prune.method"] == "none"
    if stage in ("curriculum", "distill"):
        switch = "curriculum.schedule" if stage == "curriculum" else "distill.loss"
        return name != switch and settings[switch] == "none"
    return stage == "train" and field != "epochs" and settings["train.epochs"] == 0


def _words(recipe: Recipe) -> Iterable[str]:
    if recipe.changes("prune.method"):
        after = f" after {recipe[PARENT_RATIO]}" if PARENT_RATIO in recipe else ""
        yield f"{recipe['prune.method']} {recipe.get('prune.ratio', '')}".strip() + after
    if recipe.is_trained:
        start = " from scratch" if recipe["train.start"] == "scratch" else ""
        yield f"{recipe['train.epochs']} epochs{start}" + _told(recipe, "train.lr_scale", " lr x")
        if recipe.changes("curriculum.schedule"):
            order = f"{recipe['curriculum.schedule']} {recipe.get('curriculum.order', '')}".strip()
            yield f"curriculum {order}" + _told(recipe, "curriculum.start", " from ")
        if recipe.changes("distill.loss"):
            strength = _told(recipe, "distill.temperature", " T=") + _told(recipe, "distill.alpha", " alpha=")
            yield f"distill {recipe['distill.loss']}{strength}"
    if recipe.changes("quantize.dtype"):
        yield str(recipe["quantize.dtype"])
    if recipe.changes("compile.mode"):
        yield str(recipe["compile.mode"])


def _told(recipe: Recipe, name: str, label: str) -> str:
    return f"{label}{float(recipe[name]):.3g}" if name in recipe else ""


UNTOUCHED = Recipe()
"""The recipe that changes nothing."""
