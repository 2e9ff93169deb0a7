"""What became of recipes: every verdict is told to the study, to the sampler, and to whoever else learns from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autocut.measurement import Cost
from autocut.price import Price
from autocut.recipe import UNTOUCHED, Recipe
from autocut.score import Limit, values_of
from autocut.search.early_stopping import Trainings
from autocut.search.finalists import Finalization
from autocut.search.jobs import RecipeFailed, RecipeFinalized, RecipeMeasured
from autocut.search.knowledge import Knowledge
from autocut.search.progress import Progress, headline
from autocut.search.proposing import Proposing

if TYPE_CHECKING:
    from autocut.search.proposals import Proposer
    from autocut.search.trial_store import Book

_FLOOR = 0.5
"""A model that keeps less than this share of the untouched model's metric is no alternative to it: not on the front."""


@dataclass(frozen=True)
class Scale:
    """What a measurement is turned into values with, and the limits that the values must keep."""

    price: Price
    limits: tuple[Limit, ...] = ()


class Verdicts:
    """Takes in how recipes ended.

    Args:
        known: Remembers what was measured, and what can never be.
        book: The study.
        proposer: The sampler.
        proposing: Has the trials that are open.
        trainings: Have the curves.
        finalization: Notes what was finalized.
        progress: Tells people.
        scale: Makes values of measurements.
        asked: What the user asked for: an earlier session's early stop does not count against it.
    """

    def __init__(
        self,
        *,
        known: Knowledge,
        book: Book,
        proposer: Proposer,
        proposing: Proposing,
        trainings: Trainings,
        finalization: Finalization,
        progress: Progress,
        scale: Scale,
        asked: Collection[Recipe],
    ) -> None:
        self._known = known
        self._book = book
        self._proposer = proposer
        self._proposing = proposing
        self._trainings = trainings
        self._finalization = finalization
        self._progress = progress
        self._scale = scale
        self._asked = asked
        self._floor: tuple[Limit, ...] = ()
        self._train_seconds: dict[Recipe, float] = {}

    def recall(
        self,
        recipe: Recipe,
        values: Mapping[str, float] | None,
        *,
        train_seconds: float = 0.0,
        tested: Mapping[str, float] | None = None,
        refused: bool = False,
        stopped: bool = False,
        curve: Sequence[float] = (),
    ) -> None:
        """Take over the last trial of a recipe from an earlier session.

        Args:
            recipe: Of the trial.
            values: What it gave; None means that it cannot be real, failed, or was `stopped`.
            train_seconds: That its model took to train.
            tested: What it gave on the test split; None where it was not finalized.
            refused: Whether its bundle was not accepted.
            stopped: Whether its training was ended early.
            curve: Validation metric after each epoch.
        """
        if values is None:
            self._proposer.learn(recipe, None, {})
            if not stopped:
                self._known.bury(recipe)
            elif recipe not in self._asked:
                self._trainings.recall_stopped(recipe)
            return
        self._learn(recipe, values, curve)
        self._train_seconds[recipe] = train_seconds
        self._proposer.learn(recipe, self._known.objectives(values), self._violations(values))
        if tested is not None:
            self._finalization.done.add(recipe)
            if refused and not self._broken(tested):
                self._known.refuse(recipe)

    def _learn(self, recipe: Recipe, values: Mapping[str, float], curve: Sequence[float]) -> None:
        self._trainings.finished(recipe, curve)
        self._known.remember(recipe, values)
        self._proposing.learn(recipe, values["accuracy"])

    def set_floor(self, baseline: float) -> None:
        """Add the limit that keeps useless models off the front; none where the untouched model's metric is not above 0."""
        self._floor = (Limit("accuracy", ">=", _FLOOR * baseline),) if baseline > 0 else ()

    def measured(self, event: RecipeMeasured, reference: Cost) -> None:
        """Take in a measured recipe; `reference` is what the untouched model costs."""
        values = values_of(event.measured.measurement, reference, self._scale.price, event.measured.train_seconds)
        violations = self._violations(values)
        handle, trial = self._proposing.open.pop(event.recipe, (None, None))
        number = self._book.complete(handle, event.recipe, values, event, violations, self._trainings.curve(event.recipe))
        if trial is not None:
            self._proposer.tell(trial, self._known.objectives(values), violations)
        else:
            self._proposer.learn(event.recipe, self._known.objectives(values), violations)
        self._learn(event.recipe, values, self._trainings.curve(event.recipe))
        self._train_seconds[event.recipe] = event.measured.train_seconds
        self._progress.done += 1
        self._progress.lines.append(f"trial {number}: {event.recipe.describe()}: {headline(values)}")

    def failed(self, event: RecipeFailed) -> None:
        """Take in a recipe that ended without a measurement; one that was interrupted may be run again."""
        is_stopped = event.outcome == "stopped"
        if is_stopped and not self._trainings.stop(event.recipe) and event.recipe not in self._proposing.open:
            return  # its prefix has been told, and with it what it would have been measured with
        handle, trial = self._proposing.open.pop(event.recipe, (None, None))
        number = self._book.fail(handle, event.recipe, event, self._trainings.curve(event.recipe))
        if trial is not None and event.outcome == "interrupted":
            self._proposer.forget(trial)
        elif trial is not None:
            self._proposer.reject(trial)
        self._progress.bugs += event.outcome == "bug"
        if is_stopped:
            self._progress.stopped += 1
        elif event.outcome != "interrupted":
            self._progress.failed += 1
            self._known.bury(event.recipe)
        self._progress.lines.append(
            f"trial {number}: {event.recipe.describe()}: {event.outcome}: {event.reason.partition(chr(10))[0]}"
        )

    def not_finalized(self, event: RecipeFailed) -> None:
        """A point that cannot be handed over is off the front; one whose time was up stays, and is finalized by the next run."""
        if event.outcome != "interrupted":
            self._finalization.done.add(event.recipe)
            self._known.refuse(event.recipe)
            self._book.refuse(event.recipe, f"{event.outcome}: {event.reason}")
        self._progress.lines.append(f"bundle: {event.recipe.describe()}: {event.outcome}: {event.reason.partition(chr(10))[0]}")

    def finalized(self, event: RecipeFinalized, reference: Cost) -> None:
        """Take in the numbers of the locked test split; a limit that does not hold on it refuses the bundle.

        The search is not told of such a limit: what it tries next must not depend on the test split.
        """
        values = values_of(event.measurement, reference, self._scale.price, self._train_seconds.get(event.recipe, 0.0))
        broken = self._broken(values)
        if broken and event.recipe != UNTOUCHED:
            event = replace(event, refusal=f"{broken[0]} does not hold on the test split")
        self._finalization.done.add(event.recipe)
        if event.refusal and not broken:
            self._known.refuse(event.recipe)
        self._book.finalize(event.recipe, values, event)
        done = "verified" if event.bundle else "measured"
        verdict = f"refused: {event.refusal}" if event.refusal else f"{done}, {headline(values)} on the locked test split"
        self._progress.lines.append(f"bundle: {event.recipe.describe()}: {verdict}")

    def _broken(self, values: Mapping[str, float]) -> list[str]:
        return [name for name, violation in self._violations(values).items() if violation > 0]

    def _violations(self, values: Mapping[str, float]) -> dict[str, float]:
        return {str(limit): limit.violation(values) for limit in (*self._scale.limits, *self._floor)}
