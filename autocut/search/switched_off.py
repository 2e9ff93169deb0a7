"""Methods that are switched off for a study, because they failed three times for the same reason and never worked.

A recipe that is infeasible says nothing about others with the same method, unless the reason says what the method needs.
"""

from __future__ import annotations

import re
from collections import defaultdict

from autocut.recipe import LOWERING_STAGES, Recipe, changed_settings

_MOST = 3
_NUMBER = re.compile(r"\d[\d.e+-]*")
MethodChoice = tuple[str, str]
"""An axis and the method chosen on it."""


class SwitchedOff:
    """Counts failures by method and reason."""

    def __init__(self) -> None:
        self.methods: dict[MethodChoice, str] = {}
        """MethodChoice -> the reason."""
        self.news: list[str] = []
        """Sentences for the user, who has not been told yet."""
        self._works: set[MethodChoice] = set()
        self._failed: defaultdict[tuple[MethodChoice, str], set[Recipe]] = defaultdict(set)

    def learn_success(self, recipe: Recipe) -> None:
        """Take in that `recipe` was measured: all of its methods work."""
        self._works.update(_methods(recipe))

    def learn_failure(self, recipe: Recipe, reason: str) -> None:
        """Take in that `recipe` failed. Lowerings that share a training count once for the methods of that training."""
        kind = _NUMBER.sub("#", reason.partition("\n")[0])
        for method in _methods(recipe):
            failed = self._failed[method, kind]
            failed.add(recipe if method[0].partition(".")[0] in LOWERING_STAGES else recipe.prefix)
            if len(failed) >= _MOST and method not in self._works and method not in self.methods:
                self.methods[method] = reason
                told = f"{method[0]} {method[1]} failed {_MOST} times and never worked: {reason.partition(chr(10))[0]}"
                self.news.append(f"switched off for this study: {told}")

    def learn_infeasible(self, recipe: Recipe, reason: str) -> None:
        """Take in that `recipe` is infeasible. A reason such as "prune.method 'depth' needs two blocks" holds for every setting."""
        for axis, method in _methods(recipe):
            choice = axis, method
            if reason.startswith(f"{axis} {method!r} needs ") and choice not in self._works and choice not in self.methods:
                self.methods[choice] = reason
                self.news.append(f"switched off for this study: {reason.partition(chr(10))[0]}")

    def covers(self, recipe: Recipe) -> bool:
        """Whether `recipe` needs a method that is switched off."""
        return bool(self.methods) and not self.methods.keys().isdisjoint(_methods(recipe))

    def why(self, recipe: Recipe) -> str:
        """Name the method of `recipe` that is switched off; empty where none is."""
        return next((" ".join(method) for method in _methods(recipe) if method in self.methods), "")

    def take_news(self) -> list[str]:
        """Return what the user has not been told yet."""
        told, self.news = self.news, []
        return told


def _methods(recipe: Recipe) -> list[MethodChoice]:
    """Return the methods of `recipe`, and its dtype and mode together: each of them may work with another partner."""
    named = [(knob, value) for knob, value in changed_settings(recipe).items() if isinstance(value, str)]
    dtype, mode = recipe.lowering
    return [*named, ("quantize.dtype with compile.mode", f"{dtype} with {mode}")]
