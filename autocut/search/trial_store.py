"""Where the agent writes: the study database, and what the dashboard shows."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from autocut.front import FrontPoint
from autocut.recipe import Recipe, changed_settings
from autocut.search.jobs import BaselineReady, RecipeFailed, RecipeFinalized, RecipeMeasured, StageRan
from autocut.search.proposals import Proposer
from autocut.study import Study, TrialRecord
from autocut.study.looks import FINALIZATION
from autocut.study.records import StageRun

Values = Mapping[str, float]
_INTERRUPTED = "interrupted: the search was stopped before this trial ended; the same command runs it again"


class TrialStore(Protocol):
    """What the agent needs of a study: where it records every outcome."""

    def begin(self, recipe: Recipe) -> Any:
        """Make a proposed recipe a running trial; the agent passes the returned handle to `complete` or `fail`."""

    def start(self, recipe: Recipe) -> None:
        """Note that work on a recipe begins now; it may have been proposed or queued earlier."""

    def complete(self, handle: Any, event: RecipeMeasured, values: Values, violations: Values, curve: Sequence[float]) -> int:
        """Record a measured recipe; return its trial number."""

    def fail(self, handle: Any, failure: RecipeFailed, curve: Sequence[float]) -> int:
        """Record a recipe without a measurement; return its trial number."""

    def look(self, recipe: Recipe) -> None:
        """Count a look at the locked test split, which begins now with the model of `recipe`."""

    def finalize(self, finalized: RecipeFinalized, values: Values) -> None:
        """Record the numbers of the locked test split, and the bundle, of a recipe."""

    def refuse(self, recipe: Recipe, reason: str) -> None:
        """Take a recipe off the front, because it could not be finalized."""

    def record_stage(self, stage: StageRan, recipe: Recipe) -> None:
        """Record a stage run of a recipe."""

    def set_baseline(self, ready: BaselineReady) -> None:
        """Keep what every speed-up refers to."""

    def candidates(self) -> list[FrontPoint]:
        """Everything measured that may be deployed, by validation numbers: within the limits and not refused."""

    def front(self) -> list[FrontPoint]:
        """The candidates that no other one beats."""

    def trial_number(self, recipe: Recipe) -> int | None:
        """Number of the completed trial of a recipe."""


class StudyTrialStore:
    """Writes every outcome of a search into `study`, as soon as it is known."""

    def __init__(self, study: Study, proposer: Proposer) -> None:
        self.study = study
        self._proposer = proposer
        self._numbers: dict[Recipe, int] = {}
        self.learn(study.trials())
        self._started: dict[Recipe, dt.datetime] = {}

    def begin(self, recipe: Recipe) -> optuna.Trial:
        """Make `recipe`, which the sampler proposed, a running trial."""
        params, distributions = self._proposer.parameters(recipe)
        # One transaction, unlike `enqueue_trial` and `ask`: a kill between them would leave parameters to the next trial (5.0.0).
        running = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            user_attrs={"recipe": recipe.canonical_json(), "summary": recipe.describe()},
        )
        study = self.study.optuna
        return optuna.Trial(study, study._storage.create_new_trial(study._study_id, template_trial=running))

    def start(self, recipe: Recipe) -> None:
        """See `TrialStore`: the dashboard's timeline shows the time for trials that were not proposed."""
        self._started[recipe] = dt.datetime.now(dt.UTC)

    def close_interrupted(self, alive: Collection[int] = ()) -> list[Recipe]:
        """Close the trials that dead searches left running; return the interrupted recipes that have no result yet.

        Args:
            alive: Sessions of the searches that are alive. What they have booked, they work on.
        """
        recipes = []
        for trial in self._unbooked(alive):
            recipe = Recipe(json.loads(trial.user_attrs["recipe"]))
            self.study.fail(trial, recipe, {}, {}, _INTERRUPTED, retry=True)
            recipes.append(recipe)
        settled = self.study.results()
        told = [trial.recipe for trial in self.study.trials() if trial.retry and trial.recipe is not None]
        return [recipe for recipe in dict.fromkeys([*recipes, *told]) if recipe not in settled]

    def _unbooked(self, alive: Collection[int]) -> list[FrozenTrial]:
        """Return the running trials that no search has booked. A trial is booked before it begins, and until it has ended.

        So it is left over only where it runs before the bookings were read, and still runs after that.
        """
        before = {trial.number for trial in self.study.running()}
        booked = {booking.recipe.canonical_json() for booking in self.study.bookings.all() if booking.session in alive}
        after = [trial for trial in self.study.running() if trial.number in before]
        return [trial for trial in after if trial.user_attrs["recipe"] not in booked]

    def learn(self, trials: Iterable[TrialRecord]) -> None:
        """Take in the numbers of trials that other searches have completed."""
        self._numbers |= {trial.recipe: trial.trial for trial in trials if trial.recipe is not None and trial.measured is not None}

    def complete(
        self, handle: optuna.Trial | None, event: RecipeMeasured, values: Values, violations: Values, curve: Sequence[float]
    ) -> int:
        """See `TrialStore`."""
        recipe, measured = event.recipe, event.measured
        params, distributions = self._proposer.parameters(recipe)
        number = self.study.complete(
            handle,
            recipe,
            params,
            distributions,
            values,
            measured.measurement,
            violations,
            is_baseline=is_baseline(recipe),
            curve=curve,
            extras={
                "train_seconds": measured.train_seconds,
                "samples_seen": measured.samples_seen,
                "lineage": list(measured.lineage),
                "structure": measured.structure,
            },
            started=self._started.pop(recipe, None),
        )
        self._numbers[recipe] = number
        return number

    def fail(self, handle: optuna.Trial | None, failure: RecipeFailed, curve: Sequence[float]) -> int:
        """See `TrialStore`."""
        recipe = failure.recipe
        params, distributions = self._proposer.parameters(recipe)
        retry = failure.outcome == "interrupted"
        reason = _INTERRUPTED if retry else f"{failure.outcome}: {failure.reason}"
        state = "PRUNED" if failure.outcome == "stopped" else "FAIL"
        started = self._started.pop(recipe, None)
        return self.study.fail(handle, recipe, params, distributions, reason, state, curve=curve, retry=retry, started=started)

    def look(self, recipe: Recipe) -> None:
        """See `TrialStore`."""
        self.study.record_look(self._numbers[recipe], FINALIZATION)

    def finalize(self, finalized: RecipeFinalized, values: Values) -> None:
        """See `TrialStore`."""
        self.study.record_final(
            self._numbers[finalized.recipe],
            finalized.measurement,
            values,
            bundle=Path(finalized.bundle) if finalized.bundle else None,
            bundle_sha256=finalized.digest,
            verified=finalized.refusal is None,
            refusal=finalized.refusal,
        )

    def refuse(self, recipe: Recipe, reason: str) -> None:
        """Take a measured recipe off the front, because it could not be finalized."""
        number = self._numbers[recipe]
        point = next(point for point in self.study.points() if point.trial == number)
        self.study.record_final(
            number, point.measurement, point.values, bundle=None, bundle_sha256=None, verified=False, refusal=reason
        )

    def record_stage(self, stage: StageRan, recipe: Recipe) -> None:
        """See `TrialStore`."""
        ran = (stage.key, stage.stage, stage.method, stage.seconds, "done", stage.cached, recipe.fingerprint)
        self.study.record_stage(StageRun(*ran, dt.datetime.now(dt.UTC), stage.samples_seen))

    def set_baseline(self, ready: BaselineReady) -> None:
        """Keep what every speedup refers to."""
        if ready.scoring is not None:
            self.study.describe({"scoring": asdict(ready.scoring)})
        # The reference last: where it is, the rest is.
        self.study.describe(
            {
                "machine": ready.machine,
                "baseline": asdict(ready.accuracy.metric),
                "baseline_train_seconds": ready.train_seconds,
                "untouched_epochs": ready.epochs,
            }
        )
        self.study.set_reference(ready.reference)

    def candidates(self) -> list[FrontPoint]:
        """Everything measured that may be handed over, by validation numbers."""
        return self.study.candidates()

    def front(self) -> list[FrontPoint]:
        """The front by validation numbers, which finalization works through."""
        return self.study.front()

    def trial_number(self, recipe: Recipe) -> int | None:
        """Number of the completed trial of `recipe`."""
        return self._numbers.get(recipe)


def is_baseline(recipe: Recipe) -> bool:
    """Whether people would try a recipe by hand.

    Either it does not train, and turns at most one kind of cut besides the compile mode. Or it trains the untouched model on, and
    does nothing else: more epochs help any model, so what they bring must be told apart from what a cut keeps.
    """
    knobs = {name.partition(".")[0] for name in changed_settings(recipe)} - {"compile"}
    return recipe.only_trains_on or ("train" not in knobs and len(knobs) <= 1)
