"""What the search knows, and what therefore is worth running.

Finished recipes with their values, recipes that can never be, costs by structure, seconds by stage: from these follow the lowerings
worth giving to a prefix, whether a recipe is beaten before it is trained, and what fits into the time that is left.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autocut.recipe import PARENT_RATIO, UNTOUCHED, Lowering, Recipe, Value
from autocut.score import Limit
from autocut.search.cost_first import COST_METRICS, CostModel, cheapest_modes
from autocut.search.planner import Planner
from autocut.search.tactics import EVERYTHING, Tactics
from autocut.space import Space, axis_values

_EXPENSIVE_SHARE = 0.1
"""A lowering that takes more than this share of the budget is not tried: a short budget spends its time on the cheap ones."""
_CHEAP_S = 12.0
"""Lowerings of at most this many seconds are tried without knowing what they gave to the untouched model."""
_RECENT = 25
"""Finished recipes that the price of a second of training is taken from."""
_HOPE = 0.01
"""Share by which a model may become more accurate than any before, once everything else was tried."""
_NOTHING_MUCH = 0.9
"""Cost of a pruned model, as a share of the untouched one's, from which on it is taken for noise: a neighbour makes 5%."""
_SECOND_BEST = 1.1
"""A lowering this much dearer than another one of the same dtype is not given to every prefix..."""
_AS_ACCURATE = 0.002
"""... unless it was more accurate by this much on the untouched model."""


class Knowledge:
    """Finished and impossible recipes of one search, and the judgements that follow from them.

    Args:
        space: What is explored.
        graphs: The lowerings that this machine can run, with the name of the quantized graph on which their accuracy depends.
        planner: Predicts seconds.
        budget_s: The whole budget; it decides which lowerings are affordable.
        limits: Bounds that every model must keep; what breaks them on cost is not run.
        tactics: What may be used.
        workers: Jobs at a time.
    """

    def __init__(
        self,
        space: Space,
        graphs: Mapping[Lowering, str],
        planner: Planner,
        budget_s: float,
        limits: Sequence[Limit] = (),
        tactics: Tactics = EVERYTHING,
        workers: int = 1,
    ) -> None:
        self.space = space
        self.planner = planner
        self.tactics = tactics
        self.workers = workers
        self.costs = CostModel()
        self.done: dict[Recipe, dict[str, float]] = {}
        self.dead: set[Recipe] = set()
        self.given_up: set[Recipe] = set()
        self._trained: set[Recipe] = set()
        self._ratios: dict[tuple[tuple[str, Value], ...], set[float]] = defaultdict(set)
        self._ranked: dict[tuple[Value, Value | None], list[Lowering]] = {}
        self._limits = tuple(limits)
        self._refused: set[Recipe] = set()
        self._rivals: dict[Recipe, dict[str, float]] = {}
        self._rival_losses = np.empty((0, len(space.objectives)))
        self._best_seen: dict[str, float] = {}
        self.is_hopeful = False
        self._usd_per_train_s: float | None = None
        self._graphs = graphs
        self._budget_s = budget_s
        self._cost_metrics = [name for name in space.objectives if name in COST_METRICS]

    def remember(self, recipe: Recipe, values: Mapping[str, float]) -> None:
        """Take in a finished recipe."""
        self.done[recipe] = dict(values)
        self.given_up.discard(recipe)
        for name in ("accuracy", "speedup"):
            self._best_seen[name] = max(self._best_seen.get(name, values[name]), values[name])
        self._compete(recipe, values)
        if recipe.prefix not in self._trained:
            self._trained.add(recipe.prefix)
            if "prune.ratio" in recipe and recipe.parent is None:
                self._ratios[_family(recipe.prefix)].add(float(recipe["prune.ratio"]))
        self._ranked.clear()
        self._usd_per_train_s = None
        self.costs.learn(recipe, values)

    def refuse(self, recipe: Recipe) -> None:
        """Take in that a measured recipe cannot be handed over: it stands in nobody's way any more."""
        self._refused.add(recipe)
        if recipe in self._rivals:
            self._rivals, self._rival_losses = {}, self._rival_losses[:0]
            for other, values in self.done.items():
                if other not in self._refused:
                    self._compete(other, values)

    def _compete(self, recipe: Recipe, values: Mapping[str, float]) -> None:
        losses = self._losses(values)
        if all(limit.violation(values) <= 0 for limit in self._limits) and not self._is_behind_a_rival(losses):
            behind = np.all(losses <= self._rival_losses, axis=1) & np.any(losses < self._rival_losses, axis=1)
            for rival in itertools.compress(list(self._rivals), behind):
                del self._rivals[rival]
            self._rivals[recipe] = self.done[recipe]
            self._rival_losses = np.vstack([self._rival_losses[~behind], losses])

    def bury(self, recipe: Recipe) -> None:
        """Take in a recipe that cannot be real here, or failed: it is never run again."""
        self.dead.add(recipe)
        self._ranked.clear()

    def give_up(self, recipe: Recipe) -> None:
        """Take in a recipe whose training was stopped: it may go on when nothing better is left to do."""
        self.given_up.add(recipe)

    def is_settled(self, recipe: Recipe) -> bool:
        """Whether `recipe` has had its verdict."""
        return recipe in self.done or recipe in self.dead or recipe in self.given_up

    def is_trained(self, prefix: Recipe) -> bool:
        """Whether a recipe of this prefix was measured: its training is done."""
        return prefix in self._trained

    def objectives(self, values: Mapping[str, float]) -> list[float]:
        """Objective values in the order of the space."""
        return [values[name] for name in self.space.objectives]

    # ---- lowerings ----------------------------------------

    def affordable_lowerings(self) -> list[Lowering]:
        """Lowerings of the space that run here, without lowerings that would eat too much of the budget."""
        wanted = itertools.product(self.space.methods("quantize.dtype"), self.space.methods("compile.mode"))
        limit_s = _EXPENSIVE_SHARE * self._budget_s
        return [lowering for lowering in wanted if lowering in self._graphs and self.planner.lowering_s(lowering) <= limit_s]

    def unaffordable_lowerings(self) -> dict[Lowering, float]:
        """Lowerings of the space that run here but take too long to make, with their seconds."""
        wanted = itertools.product(self.space.methods("quantize.dtype"), self.space.methods("compile.mode"))
        left_out = set(self._graphs) - set(self.affordable_lowerings())
        return {lowering: self.planner.lowering_s(lowering) for lowering in wanted if lowering in left_out}

    def is_feasible(self, lowering: Lowering) -> bool:
        """Whether this machine can run the lowering."""
        return lowering in self._graphs

    def is_cheap(self, lowering: Lowering) -> bool:
        """Whether making the lowering takes seconds, not a good part of a minute."""
        return self.planner.lowering_s(lowering) <= _CHEAP_S

    def promising_lowerings(self, prefix: Recipe) -> list[Lowering]:
        """Lowerings of `prefix` that no other lowering is known to beat, cheapest first."""
        cut = (prefix["prune.method"], prefix.get("prune.ratio"))
        if cut not in self._ranked:
            self._ranked[cut] = self._rank_lowerings(prefix)
        return [lowering for lowering in self._ranked[cut] if prefix.with_lowering(*lowering) not in self.dead]

    def _rank_lowerings(self, prefix: Recipe) -> list[Lowering]:
        lowerings = [lowering for lowering in self.affordable_lowerings() if self._may_be_given(lowering)]
        predicted = {
            lowering: self.costs.predict(prefix.with_lowering(*lowering)) or self.costs.predict(UNTOUCHED.with_lowering(*lowering))
            for lowering in lowerings
        }
        costs = {lowering: cost for lowering, cost in predicted.items() if cost}
        first = self._cost_metrics[0] if self._cost_metrics else "usd_per_million"
        ranked = sorted(
            cheapest_modes(lowerings, costs, self._graphs, self._cost_metrics),
            key=lambda lowering: costs.get(lowering, {}).get(first, float("inf")),
        )
        cheapest: dict[str, Lowering] = {}
        for lowering in ranked:
            cheapest.setdefault(lowering[0], lowering)
        return [lowering for lowering in ranked if not self._is_second_best(lowering, cheapest[lowering[0]], costs)]

    def _may_be_given(self, lowering: Lowering) -> bool:
        untouched = UNTOUCHED.with_lowering(*lowering)
        return untouched not in self.dead and (untouched in self.done or self.is_cheap(lowering))

    def _is_second_best(self, lowering: Lowering, best: Lowering, costs: Mapping[Lowering, Mapping[str, float]]) -> bool:
        """Whether another lowering of the same dtype is clearly cheaper, in nothing clearly dearer, and as accurate untouched."""
        if lowering == best or lowering not in costs or best not in costs or not self._cost_metrics:
            return False
        accuracy, rival = (self.done.get(UNTOUCHED.with_lowering(*one), {}).get("accuracy", 0.0) for one in (lowering, best))
        first, *others = (costs[lowering][name] / costs[best][name] for name in self._cost_metrics)
        return first > _SECOND_BEST and all(other > 1 / _SECOND_BEST for other in others) and rival >= accuracy - _AS_ACCURATE

    # ---- epochs ----------------------------------------

    def ladder(self) -> tuple[int, ...]:
        """The space's numbers of epochs that fit the budget."""
        return self.planner.ladder(self._epochs(), self._budget_s, self.workers)

    def too_long(self) -> tuple[int, ...]:
        """The space's numbers of epochs that do not."""
        return tuple(epochs for epochs in self._epochs() if epochs > 0 and epochs not in self.ladder())

    def on_ladder(self, recipe: Recipe) -> Recipe:
        """Return `recipe`, with the most epochs that fit where it has more."""
        if int(recipe["train.epochs"]) not in self.too_long():
            return recipe
        return Recipe({**recipe, "train.epochs": max(self.ladder())})

    def _epochs(self) -> tuple[int, ...]:
        axis = self.space.axis("train.epochs")
        return tuple(sorted(int(value) for value in axis_values(axis))) if axis else ()

    # ---- recipes ----------------------------------------

    def with_lowerings(self, recipe: Recipe) -> tuple[Recipe, ...]:
        """Return `recipe` and its siblings: the same trained prefix with every promising, cheap lowering that is not beaten.

        Lowerings that take long to make are proposed later, where they promise enough for their seconds.
        """
        siblings = [sibling for sibling in self.fan_out(recipe) if sibling != recipe and self.is_cheap(sibling.lowering)]
        return (recipe, *siblings)

    def fan_out(self, recipe: Recipe) -> tuple[Recipe, ...]:
        """Return the prefix of `recipe` with every promising lowering that is not beaten, its own lowering first."""
        if not self.tactics.fan_out:
            return () if self.is_beaten(recipe) or recipe.lowering not in self.affordable_lowerings() else (recipe,)
        if int(recipe["train.epochs"]) in self.too_long() or self._has_no_less(recipe):
            return ()
        siblings = [recipe.prefix.with_lowering(*lowering) for lowering in self.promising_lowerings(recipe.prefix)]
        left = [sibling for sibling in siblings if not self.is_beaten(sibling)]
        return tuple(sorted(left, key=lambda sibling: sibling != recipe))

    def _has_no_less(self, recipe: Recipe) -> bool:
        """Whether an heir is as wide as its parent, after rounding: there is nothing to prune on."""
        if recipe.parent is None:
            return False
        pairs = [(recipe.with_lowering(*lowering), recipe.parent.with_lowering(*lowering)) for lowering in self._graphs]
        return any(self.costs.is_known(own) and self.costs.predict(own) == self.costs.predict(parent) for own, parent in pairs)

    def heir(self, recipe: Recipe) -> Recipe | None:
        """Return `recipe` as the heir of the most pruned trained prefix that is its parent but for the ratio; None without one."""
        if not self.tactics.inheritance or recipe.parent is not None or "prune.ratio" not in recipe or not recipe.is_trained:
            return None
        smaller = [ratio for ratio in self._ratios[_family(recipe.prefix)] if ratio < float(recipe["prune.ratio"])]
        return Recipe({**recipe, PARENT_RATIO: max(smaller)}) if smaller else None

    def is_beaten(self, recipe: Recipe) -> bool:
        """Whether `recipe` breaks a limit on cost, or a finished trial is nowhere worse even than its best case."""
        cost = self.costs.predict(recipe)
        if not self.done or cost is None or not self.tactics.cost_first:
            return False
        if any(limit.name in cost and limit.violation(cost) > 0 for limit in self._limits):
            return True
        if recipe.is_trained and "train_usd" in self.space.objectives:
            return False  # how accurate a cheap training can be is what such a search is for
        best_case = self._losses({**cost, **self._best_case(), "train_usd": 0.0})
        return self._is_behind_a_rival(best_case)

    def _is_behind_a_rival(self, losses: NDArray[np.float64]) -> bool:
        no_worse, better = np.all(self._rival_losses <= losses, axis=1), np.any(self._rival_losses < losses, axis=1)
        return bool(np.any(no_worse & better))

    def _best_case(self) -> dict[str, float]:
        best = dict(self._best_seen)
        if "accuracy" in best and self.is_hopeful:
            best["accuracy"] += _HOPE * abs(best["accuracy"])
        return best

    def hope(self) -> bool:
        """From now on expect a little more than the best accuracy seen, and let every training end; False if that is so already.

        For the time when nothing is left that would be worth it otherwise. Trainings that were stopped may go on.
        """
        if self.is_hopeful:
            return False
        self.is_hopeful = True
        self.given_up.clear()
        return True

    def needed_accuracy(self, recipes: Sequence[Recipe]) -> float:
        """What one of `recipes` must reach at its known cost, or no finished trial is behind it; -inf where that is not known."""
        if "train_usd" in self.space.objectives:
            return -math.inf
        return min(map(self._needed, recipes), default=-math.inf)

    def _needed(self, recipe: Recipe) -> float:
        cost = self.costs.predict(recipe)
        if cost is None:
            return -math.inf
        no_dearer = [
            values["accuracy"] for values in self._rivals.values() if all(values[name] <= cost[name] for name in self._cost_metrics)
        ]
        bounds = [limit.bound for limit in self._limits if limit.name == "accuracy"]
        return max([*no_dearer, *bounds], default=-math.inf)

    def expected_cost(self, recipe: Recipe) -> dict[str, float]:
        """Return what `recipe` will probably cost: known, interpolated, or guessed from another lowering or structure."""
        costs = self.costs
        cost = costs.predict(recipe) or costs.scaled(recipe) or costs.nearest(recipe) or self.done.get(UNTOUCHED, {})
        if "train_usd" not in self.space.objectives:
            return dict(cost)
        if self._usd_per_train_s is None:
            self._usd_per_train_s = self._price_of_training()
        train_usd = self._untouched_usd(recipe) + self._usd_per_train_s * self._lineage_train_s(recipe)
        return {**cost, "train_usd": train_usd}

    def _untouched_usd(self, recipe: Recipe) -> float:
        """Price of training the untouched model, for what starts from it; 0 where the task brings its weights."""
        is_scratch = recipe.get("train.start") == "scratch"
        return 0.0 if is_scratch else self.done.get(UNTOUCHED, {}).get("train_usd", 0.0)

    def _lineage_train_s(self, recipe: Recipe) -> float:
        """Seconds of the trainings of `recipe` and of its parent."""
        return self.planner.train_s(recipe) + (0.0 if recipe.parent is None else self.planner.train_s(recipe.parent))

    def _price_of_training(self) -> float:
        """USD per second of training."""
        spent = [
            (values["train_usd"] - self._untouched_usd(recipe)) / seconds
            for recipe, values in itertools.islice(reversed(self.done.items()), _RECENT)
            if recipe.is_trained and (seconds := self._lineage_train_s(recipe)) > 0
        ]
        return statistics.median(spent) if spent else 0.0

    def front_values(self) -> list[dict[str, float]]:
        """Values of the finished recipes within the limits that none other beats."""
        return list(self._rivals.values())

    def front_recipes(self) -> list[Recipe]:
        """The finished recipes within the limits that none other beats."""
        return list(self._rivals)

    def graph(self, recipe: Recipe) -> str:
        """What the accuracy of `recipe` depends on besides its prefix."""
        return self._graphs.get(recipe.lowering, recipe.lowering[0])

    def got_no_cheaper(self, method: str) -> bool:
        """Whether pruning by `method` was measured and saved nothing much anywhere, as zeros without a kernel for them do."""
        ratios = [
            values["usd_per_million"] / untouched["usd_per_million"]
            for recipe, values in self.done.items()
            if recipe["prune.method"] == method and (untouched := self.done.get(UNTOUCHED.with_lowering(*recipe.lowering)))
        ]
        return bool(ratios) and min(ratios) > _NOTHING_MUCH

    def seconds(self, recipe: Recipe) -> float:
        """Seconds that `recipe` will take: a prefix that is trained already costs nothing."""
        return self.training_s(recipe) + self.planner.lowering_s(recipe.lowering, self.costs.is_known(recipe))

    def training_s(self, recipe: Recipe) -> float:
        """Seconds until the prefix of `recipe` is trained, and its parent; 0 where they are."""
        train_s = self.planner.train_s(recipe) if recipe.is_trained and recipe.prefix not in self._trained else 0.0
        if recipe.parent is not None and recipe.parent not in self._trained:
            train_s += self.planner.train_s(recipe.parent)
        return train_s

    def fitting(self, recipes: Sequence[Recipe], left_s: float) -> tuple[Recipe, ...]:
        """Return the first of `recipes` that fit into `left_s` seconds; none where not even the first does."""
        ends = itertools.accumulate(self.seconds_each(recipes))
        return tuple(recipe for recipe, end in zip(recipes, ends, strict=True) if end < left_s)

    def total_s(self, recipes: Sequence[Recipe]) -> float:
        """Seconds that `recipes` take one after the other: each prefix is trained once, and converted once for a mode."""
        return math.fsum(self.seconds_each(recipes))

    def seconds_each(self, recipes: Sequence[Recipe]) -> list[float]:
        """Seconds of each of `recipes`, one after the other: the first pays for what those of its prefix, or mode, share."""
        modes: dict[Recipe, set[str]] = {}
        seconds = []
        for recipe in recipes:
            mode = recipe.lowering[1]
            if (seen := modes.get(recipe.prefix)) is None:
                seconds.append(self.seconds(recipe))
            else:
                seconds.append(self.planner.lowering_s(recipe.lowering, self.costs.is_known(recipe), is_converted=mode in seen))
            modes.setdefault(recipe.prefix, set()).add(mode)
        return seconds

    def _losses(self, values: Mapping[str, float]) -> NDArray[np.float64]:
        return np.array([-values[name] if best == "maximize" else values[name] for name, best in self.space.objectives.items()])


def _family(prefix: Recipe) -> tuple[tuple[str, Value], ...]:
    """What prefixes have in common that differ in their prune ratio alone."""
    return tuple((name, value) for name, value in prefix.items() if name != "prune.ratio")
