"""What is tried without being proposed: baselines, each pruning method once, wishes, anchors, more ratios; beside, slow compilers.

Each phase yields requests, and None while what it would ask for next depends on jobs that still run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.knowledge import Knowledge
from autocut.space import Axis

_COMPILING_SHARE = 0.05
"""Share of the time so far that slow lowerings which nobody proposed may have had."""
_SKELETON_LOWERINGS = 3
BASELINES = "baselines:"
"""What the reasons of the baselines' jobs begin with."""
COMPILERS = "compilers:"
"""What the reasons of jobs with a slow compiler begin with that nobody proposed."""
_COST_FIRST = "cost first:"


@dataclass(frozen=True)
class Request:
    """Recipes that wait for a worker; `may_skip` lets the agent drop those that were beaten meanwhile."""

    recipes: tuple[Recipe, ...]
    why: str
    may_skip: bool = True


Phase = Iterator[Request | None]
Running = Callable[[str], bool]
"""Whether a job runs whose reason begins with these words."""


def phases(known: Knowledge, tries: Sequence[Recipe], running: Running) -> Iterator[Phase]:
    """The phases of a search, until it proposes."""
    yield baselines(known)
    if known.tactics.cost_first:
        yield methods(known, running)
    yield wishes(known, tries)
    if known.tactics.cost_first:
        yield ratios(known, running)


def baselines(known: Knowledge) -> Phase:
    """The untouched model in every form that is quickly made; a worker each makes its share."""
    cheap = [lowering for lowering in _lowerings_by_seconds(known) if known.is_cheap(lowering)]
    for group in [cheap[first :: known.workers] for first in range(known.workers)]:
        if group:
            recipes = tuple(UNTOUCHED.with_lowering(*lowering) for lowering in group)
            yield Request(recipes, f"{BASELINES} the untouched model in {len(group)} more forms", may_skip=False)


class SlowLowerings:
    """What needs a slow compiler: the space's anchors, then the untouched model, each mode once before any with another dtype.

    Are they worth their seconds here? They are rationed, because early in a search a worker finds more with the quick ones: a
    compiler's turn comes when all of them together have had less than a share of the time so far.
    """

    def __init__(self, known: Knowledge) -> None:
        self._known = known
        self._waiting: deque[Request] | None = None
        self._given_s = 0.0

    def next(self, spent_s: float) -> Request | None:
        """Return the next one after `spent_s` seconds of all workers; None where none is left, or its turn has not come.

        With infinite seconds every turn has come: for a worker that has nothing else to do.
        """
        if self._waiting is None:
            self._waiting = deque(self._requests())
        while self._waiting:
            recipe = self._waiting[0].recipes[0]
            if self._known.is_settled(recipe):
                self._waiting.popleft()
                continue
            given_s = self._given_s + self._known.planner.lowering_s(recipe.lowering)
            if given_s > _COMPILING_SHARE * spent_s:
                return None
            self._given_s = given_s
            return self._waiting.popleft()
        return None

    def _requests(self) -> Iterable[Request]:
        slow = [lowering for lowering in _lowerings_by_seconds(self._known) if not self._known.is_cheap(lowering)]
        requests = {
            request.recipes[0]: request for request in anchors(self._known) if request and request.recipes[0].lowering in slow
        }
        of_mode = {mode: [lowering for lowering in slow if lowering[1] == mode] for _, mode in slow}
        for dtype, mode in sorted(slow, key=lambda lowering: of_mode[lowering[1]].index(lowering)):
            why = f"{COMPILERS} the untouched model, {dtype} by {mode}"
            untouched = UNTOUCHED.with_lowering(dtype, mode)
            requests.setdefault(untouched, Request((untouched,), why, may_skip=False))
        return requests.values()


def _lowerings_by_seconds(known: Knowledge) -> list[tuple[str, str]]:
    return sorted(known.affordable_lowerings(), key=known.planner.lowering_s)


def methods(known: Knowledge, running: Running) -> Phase:
    """Each pruning method without training: does it save anything here?"""
    while running(BASELINES):
        yield None  # the best lowerings are not known yet
    if ratio_axis := known.space.axis("prune.ratio"):
        yield from (_skeleton(known, method, [nearest_value(ratio_axis, 0.5)]) for method in _pruning_methods(known))


def ratios(known: Knowledge, running: Running) -> Phase:
    """Each pruning method that saves something at more ratios, without training: this prices what is trained later.

    What the wishes have priced already is left out.
    """
    while running(_COST_FIRST):
        yield None  # which methods are worth more ratios is not known yet
    every = _pruning_methods(known)
    for at, method in enumerate(every):
        has_earlier_twin = not known.costs.twins(method).isdisjoint(every[:at])
        if (axis := known.space.axis("prune.ratio")) and not known.got_no_cheaper(method) and not has_earlier_twin:
            # The ends of the axis too: between them every cost can be interpolated.
            yield _skeleton(known, method, dict.fromkeys(nearest_value(axis, wish) for wish in (1.0, 0.75, 0.25)))


def wishes(known: Knowledge, tries: Iterable[Recipe]) -> Phase:
    """The user's recipes, which are run however bad they look, then anchors with a quick lowering; each with its cheap ones."""
    for recipe in tries:
        yield Request(known.with_lowerings(recipe), f"asked for: {recipe.prefix.describe()}", may_skip=False)
    yield from (request for request in anchors(known) if request and known.is_cheap(request.recipes[0].lowering))


def anchors(known: Knowledge) -> Phase:
    """The space's anchors, with as many epochs as fit the budget."""
    for recipe in dict.fromkeys(known.on_ladder(anchor) for anchor in known.space.anchors):
        yield Request(known.with_lowerings(recipe), f"anchor: {recipe.prefix.describe()}")


def nearest_value(axis: Axis, wish: float) -> float:
    """Return the value of a numeric `axis` that is nearest to `wish`."""
    if axis.choices:
        return min((float(choice) for choice in axis.choices), key=lambda choice: abs(choice - wish))
    low, high = float(axis.low or 0.0), float(axis.high or 0.0)
    inside = min(max(wish, low), high)
    return round(low + round((inside - low) / axis.step) * axis.step, 10) if axis.step else inside


def _pruning_methods(known: Knowledge) -> list[str]:
    axis = known.space.axis("prune.method")
    return [str(method) for method in axis.choices if method != "none"] if axis else []


def _skeleton(known: Knowledge, method: str, ratios: Iterable[float]) -> Request:
    prefixes = [Recipe({"prune.method": method, "prune.ratio": ratio}) for ratio in ratios]
    lowering = (prefix.with_lowering(*lowering) for prefix in prefixes for lowering in _pricing_lowerings(known, prefix))
    recipes = tuple(recipe for recipe in lowering if not known.costs.is_known(recipe))
    why = f"{_COST_FIRST} {method} {', '.join(f'{ratio:g}' for ratio in ratios)} without training"
    return Request(recipes, why, may_skip=False)


def _pricing_lowerings(known: Knowledge, prefix: Recipe) -> list[tuple[str, str]]:
    """The cheapest lowerings: what a structure saves with them, it saves about with the slow ones too."""
    lowerings = known.promising_lowerings(prefix)
    return ([lowering for lowering in lowerings if known.is_cheap(lowering)] or lowerings)[:_SKELETON_LOWERINGS]
