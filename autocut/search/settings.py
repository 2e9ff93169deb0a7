"""What stays fixed during a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from autocut.price import Price
from autocut.recipe import Lowering, Recipe
from autocut.score import Limit
from autocut.search.cost_model import COST_METRICS
from autocut.search.first_guesses import NO_GUESSES, FirstGuesses
from autocut.space import Space


@dataclass(frozen=True)
class Tactics:
    """What makes a search fast. A search uses all of it; ablations switch one part off (studies/search_efficiency).

    Attributes:
        fan_out: A trained prefix is measured with every promising lowering, not only with the proposed one.
        cost_first: Costs are measured before training, and a recipe that is beaten on cost is not trained.
        early_stopping: A training ends at a rung where even an optimistic end would not reach the front.
        inheritance: A more pruned child may start from its less pruned trained parent.
        trained_baseline: The untouched model is trained as long as the front's leading point, to tell what training alone brings.
        gain_per_second: Of several proposals the one runs that promises the most hypervolume per predicted second.
    """

    fan_out: bool = True
    cost_first: bool = True
    early_stopping: bool = True
    inheritance: bool = True
    trained_baseline: bool = True
    gain_per_second: bool = True


EVERYTHING = Tactics()


@dataclass(frozen=True)
class SearchSettings:
    """What a search explores, and under which conditions."""

    space: Space
    graphs: Mapping[Lowering, str]
    """The lowerings that this machine can run, each with the name of the quantized graph on which its accuracy depends."""
    budget_s: float
    price: Price
    limits: tuple[Limit, ...] = ()
    user_recipes: tuple[Recipe, ...] = ()
    """What the user asked for, and what an earlier session left unfinished. They always run."""
    tactics: Tactics = EVERYTHING
    workers: int = 1
    max_drop: float | None = None
    """Largest loss of the metric against the untouched model with which a point counts (`score.allowed_drop`); None: no limit."""
    first_guesses: FirstGuesses = NO_GUESSES
    """What methods will probably bring to this model, by what they brought to similar ones."""
    learned: tuple[tuple[Recipe, ...], ...] = ()
    """Recipes of an earlier study's front, by model (`--learn-from`). They run first, as far as they are possible here."""
    registered_speedups: Mapping[Lowering, float] = field(default_factory=dict)
    """The speed-ups that plug-ins guess of lowerings which `first_guesses` does not know."""
    impossible: Mapping[Lowering, str] = field(default_factory=dict)
    """The lowerings that this machine cannot run, each with its reason."""

    @property
    def objectives(self) -> Mapping[str, str]:
        """Names of the objectives with "maximize" or "minimize"."""
        return self.space.objectives

    @cached_property
    def cost_metrics(self) -> tuple[str, ...]:
        """Objectives that are costs of a lowered model."""
        return tuple(name for name in self.objectives if name in COST_METRICS)

    def graph(self, recipe: Recipe) -> str:
        """Name what the accuracy of `recipe` depends on besides its prefix."""
        return self.graphs.get(recipe.lowering, recipe.lowering[0])

    def objective_values(self, values: Mapping[str, float]) -> list[float]:
        """Return the objective values in the order of the space."""
        return [values[name] for name in self.objectives]
