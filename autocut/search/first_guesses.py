"""First guesses: what a method will probably bring to a model, before a search has measured anything.

`first_guesses.json` has what methods have brought to several families of models: speed, size, accuracy and seconds, each method
by itself. It is made from `studies/method_matrix`. A guess for another model is a mean over the families, in which the most similar
ones weigh the most. How similar two models are follows from their kinds of layers, the number of weights and the milliseconds of a
call. An earlier study of the user's (`--learn-from`) comes before all of them, for the methods that it has tried.

Speed depends on how much a call has to do. So a family's factor is interpolated between its two batch sizes, at the milliseconds of
a call that the new model has. On another kind of processor the guesses are weaker: they are drawn towards no effect at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from autocut.recipe import UNTOUCHED, Lowering, without_kept

SCHEMA_VERSION = 1
FILE = "first_guesses.json"
COLUMNS = ("speedup_small", "speedup_large", "size_ratio", "kept", "seconds")
"""What the file has of each method, in this order (`MethodEffect`)."""
DECIDING = ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "amx_tile", "asimd", "i8mm", "bf16", "sve")
"""Instruction sets that decide which lowering is fast. Two processors that have the same of these count as one kind."""
_TRUST_ELSEWHERE = 0.5
"""Share of the logarithm of a factor that is believed on another kind of processor."""
_SHARPNESS = 3.0
"""How quickly a family's weight falls with its distance. At 3, a family that is 0.5 further away weighs less than a quarter."""
_DECADES = 3.0
"""So many powers of ten, in weights or in milliseconds, count as much as another kind of layers."""
KEPT_GAIN = 0.8
"""What a lowering that keeps layers in float is guessed to gain, as a share of the logarithm of what it would gain without."""
_AS_GUESSED = 2
"""Lowerings without a surprise that count beside those whose speed-up, as a logarithm, was not what was guessed. It was chosen on
the families: `python studies/method_matrix/first_guesses.py --check` prints what it brings."""
_OWN = "an earlier study"
_FLOAT = UNTOUCHED.lowering[0]


@dataclass(frozen=True)
class ModelTraits:
    """What of an untouched model decides which family it is like.

    Attributes:
        convolutions: Share of convolutions among the layers that have weights of products; 0 without any.
        attention: Whether it has attention.
        embeddings: Whether it looks up embeddings.
        causal: Whether it predicts the next token.
        parameters: Number of its weights.
    """

    convolutions: float
    attention: bool
    embeddings: bool
    causal: bool
    parameters: int


@dataclass(frozen=True)
class MethodEffect:
    """What one method did to one model. Factors are against the untouched model.

    `speedup_small` and `speedup_large` are those of the small and the large batch. `kept` is 1 where no accuracy was lost, and 0
    where a tenth of the metric or more was lost. `seconds` is what making it takes.
    """

    speedup_small: float
    speedup_large: float
    size_ratio: float
    kept: float
    seconds: float


@dataclass(frozen=True)
class ModelFamily:
    """A model on which methods were measured. `call_ms` are milliseconds of a call at the small and at the large batch.

    `effects` are by axis and method: the axis ``lowering`` has ``int8_static/onnxruntime``, the axis ``recover`` pruners at half of
    the weights with a training after it.
    """

    name: str
    traits: ModelTraits | None
    call_ms: tuple[float, float]
    effects: Mapping[str, Mapping[str, MethodEffect]]


@dataclass(frozen=True)
class Guess:
    """What a method will probably bring: factors of speed (above 1: faster) and of size, the share of accuracy kept, seconds."""

    speedup: float
    size_ratio: float
    kept: float
    seconds: float

    @property
    def speed(self) -> float:
        """Logarithm of how many times faster the model becomes, times what is kept of its accuracy."""
        return self.kept * math.log(self.speedup)

    @property
    def gain(self) -> float:
        """Logarithm of how many times faster and smaller the model becomes, times what is kept of its accuracy."""
        return self.kept * (math.log(self.speedup) - math.log(self.size_ratio))


@dataclass(frozen=True)
class FirstGuesses:
    """Guesses for one model.

    Attributes:
        families: What is known, each family with its distance from the model.
        trust: Share of each logarithm that is believed.
        call_ms: Milliseconds of a call of the untouched model at the batch size that counts; None: not known yet.
        not_accelerated: Dtypes for whose products the processor has no instructions, though those of the families had them. They
            are guessed to be as fast as fp32 in the same mode.
    """

    families: tuple[tuple[ModelFamily, float], ...] = ()
    trust: float = 1.0
    call_ms: float | None = None
    not_accelerated: frozenset[str] = frozenset()

    def at(self, call_ms: float) -> FirstGuesses:
        """Return the guesses for a model of which a call takes `call_ms`."""
        return replace(self, call_ms=call_ms)

    def lowering(self, lowering: Lowering) -> Guess | None:
        """Guess what a lowering of the untouched model brings; None where no family has it, as with a plug-in's methods."""
        dtype, kept = without_kept(lowering[0])
        guess = self.of("lowering", f"{dtype}/{lowering[1]}")
        if guess is not None and dtype in self.not_accelerated and not self._is_own("lowering", f"{dtype}/{lowering[1]}"):
            in_float = self.of("lowering", f"{_FLOAT}/{lowering[1]}")
            guess = replace(guess, speedup=1.0 if in_float is None else in_float.speedup)
        if guess is None or not kept:
            return guess
        return replace(guess, speedup=guess.speedup**KEPT_GAIN, size_ratio=guess.size_ratio**KEPT_GAIN)

    def of(self, axis: str, method: str) -> Guess | None:
        """Guess what `method` brings: a weighted mean over the families that have it; None where none has."""
        known = self._effects(axis, method)
        if not known:
            return None
        weights = [math.exp(-_SHARPNESS * self._distance(family, distance)) for family, _, distance in known]
        whole, trust = math.fsum(weights), 1.0 if self._is_own(axis, method) else self.trust

        def mean(values: Iterable[float]) -> float:
            return math.fsum(weight * value for weight, value in zip(weights, values, strict=True)) / whole

        return Guess(
            math.exp(trust * mean(self._log_speedup(family, effect) for family, effect, _ in known)),
            math.exp(mean(math.log(effect.size_ratio) for _, effect, _ in known)),
            mean(effect.kept for _, effect, _ in known),
            math.exp(mean(math.log(effect.seconds) for _, effect, _ in known)),
        )

    def nearest(self) -> ModelFamily | None:
        """Return the family that weighs the most; None where nothing is known."""
        return min(self.families, key=lambda known: self._distance(*known), default=(None, 0.0))[0]

    def with_family(self, family: ModelFamily) -> FirstGuesses:
        """Return the guesses with one more family, which is as similar as can be."""
        return replace(self, families=((family, 0.0), *self.families))

    def _is_own(self, axis: str, method: str) -> bool:
        """Whether the user has measured the method on this model."""
        return any(family.name == _OWN for family, _, _ in self._effects(axis, method))

    def _effects(self, axis: str, method: str) -> list[tuple[ModelFamily, MethodEffect, float]]:
        found = ((family, family.effects.get(axis, {}).get(method), distance) for family, distance in self.families)
        known = [(family, effect, distance) for family, effect, distance in found if effect is not None]
        own = [one for one in known if one[0].name == _OWN]
        return own or known  # what the user has measured is no mean with other models

    def _distance(self, family: ModelFamily, distance: float) -> float:
        """The distance with the milliseconds of a call, once they are known: 0 inside of what the family has."""
        if self.call_ms is None or family.traits is None:
            return distance
        low, high = family.call_ms
        outside = max(math.log10(low / self.call_ms), math.log10(self.call_ms / high), 0.0)
        return math.hypot(distance, outside / _DECADES)

    def _log_speedup(self, family: ModelFamily, effect: MethodEffect) -> float:
        small, large = math.log(effect.speedup_small), math.log(effect.speedup_large)
        low, high = (math.log(call_ms) for call_ms in family.call_ms)
        if self.call_ms is None or high <= low:
            return (small + large) / 2
        weight = min(max((math.log(self.call_ms) - low) / (high - low), 0.0), 1.0)
        return small + weight * (large - small)


NO_GUESSES = FirstGuesses()


@dataclass(frozen=True)
class KnownFamilies:
    """What `first_guesses.json` has, and on which instruction sets of `DECIDING` it was measured."""

    families: tuple[ModelFamily, ...]
    instructions: frozenset[str]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def guesses(self, traits: ModelTraits, instructions: str, without: Sequence[str] = ()) -> FirstGuesses:
        """Return the guesses for a model with these `traits` on a processor with these `instructions`.

        `without` names families that are left out: a study must not guess from itself.
        """
        used = [family for family in self.families if family.name not in without]
        near = ((family, distance_between(traits, family.traits)) for family in used if family.traits is not None)
        same = self.instructions == deciding(instructions)
        return FirstGuesses(tuple(near), 1.0 if same else _TRUST_ELSEWHERE)


def surprise_expected(lowering: Lowering, surprises: Mapping[Lowering, float]) -> float:
    """Return the logarithm of how much faster than guessed `lowering` will probably be.

    `surprises` are those of lowerings that were timed on the same model. What the ones with its dtype have in common, and the ones
    with its mode, is expected of it too: the less, the fewer they are. fp32 has nothing in common from one mode to another.
    """
    (dtype, mode), found = (without_kept(lowering[0])[0], lowering[1]), surprises.items()
    of_dtype = [surprise for (known, _), surprise in found if without_kept(known)[0] == dtype != _FLOAT]
    of_mode = [surprise for (_, known), surprise in found if known == mode]
    return math.fsum(math.fsum(alike) / (len(alike) + _AS_GUESSED) for alike in (of_dtype, of_mode))


def deciding(instructions: str) -> frozenset[str]:
    """Return those of `instructions`, separated by spaces, that decide which lowering is fast."""
    return frozenset(instructions.split()) & frozenset(DECIDING)


def distance_between(one: ModelTraits, other: ModelTraits) -> float:
    """Return how unlike two models are: 0 for equals, 1 for another kind of layers, or for a thousand times as many weights."""
    decades = math.log10(max(one.parameters, 1) / max(other.parameters, 1))
    differ = (one.attention != other.attention, one.embeddings != other.embeddings, one.causal != other.causal)
    kinds = [one.convolutions - other.convolutions, *(0.7 * float(each) for each in differ)]
    return math.hypot(decades / _DECADES, *kinds)


@cache
def known_families() -> KnownFamilies:
    """Read `first_guesses.json`, which is a part of the package."""
    document = json.loads(files("autocut.search").joinpath(FILE).read_text(encoding="utf-8"))
    return KnownFamilies(
        tuple(_family(name, written) for name, written in document["families"].items()),
        frozenset(document["processor"]["instructions"]),
        MappingProxyType({name: value for name, value in document.items() if name != "families"}),
    )


def own_family(lowerings: Mapping[str, MethodEffect], recoveries: Mapping[str, MethodEffect]) -> ModelFamily:
    """Return the family that a user's earlier study is: what its lowerings and its pruners have brought there."""
    return ModelFamily(_OWN, None, (1.0, 1.0), {"lowering": lowerings, "recover": recoveries})


def to_document(family: ModelFamily) -> dict[str, Any]:
    """Write a family as `first_guesses.json` has it."""
    if family.traits is None:
        raise ValueError("a family of the file has traits")
    effects = {
        axis: {name: [float(f"{getattr(effect, column):.3g}") for column in COLUMNS] for name, effect in methods.items()}
        for axis, methods in family.effects.items()
    }
    return {"traits": asdict(family.traits), "call_ms": list(family.call_ms), "effects": effects}


def _family(name: str, written: Mapping[str, Any]) -> ModelFamily:
    small, large = written["call_ms"]
    effects = {
        axis: {method: MethodEffect(*numbers) for method, numbers in methods.items()}
        for axis, methods in written["effects"].items()
    }
    return ModelFamily(name, ModelTraits(**written["traits"]), (small, large), effects)


def kept_of(change: float, untouched: float, tenth: float = 0.1) -> float:
    """Return which share of a tenth of the metric is left after a `change` from `untouched`: 1 without a loss, 0 at a tenth."""
    scale = tenth * abs(untouched)
    return min(max(1 + change / scale, 0.0), 1.0) if scale else float(change >= 0)
