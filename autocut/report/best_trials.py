"""Makes the dashboard's list "Best Trials" the front of autocut.

optuna-dashboard 0.21 lists every trial that none other beats, although some violate a limit and the bundles of some were refused.
Can go when the dashboard leaves infeasible trials out of its list, and a refused bundle makes its trial infeasible there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from autocut.study import Study

_CONSTRAINTS = "constraints"
_READ_EVERY_S = 5.0

_Best = Callable[[Sequence[FrozenTrial], Sequence[StudyDirection]], list[FrozenTrial]]


@contextmanager
def best_is_front(study: Study) -> Iterator[None]:
    """While the block runs, the dashboard of this process calls only those trials best that autocut may offer.

    The dashboard finds the function by its name in its own module, so it is replaced there.
    """
    from optuna_dashboard import _app

    original: _Best = _app.get_pareto_front_trials
    refusals = _Refusals(study)

    def best(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
        refused = refusals.trial_ids()
        return original([trial for trial in trials if _is_feasible(trial) and trial._trial_id not in refused], directions)

    _app.get_pareto_front_trials = best
    try:
        yield
    finally:
        _app.get_pareto_front_trials = original


class _Refusals:
    """The trials whose bundle was refused. They are read again every few seconds, because a search may run."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._read = -float("inf")

    def trial_ids(self) -> set[int]:
        if time.monotonic() > self._read + _READ_EVERY_S:
            self._study.reload()
            self._read = time.monotonic()
        finals = self._study.finals()
        return {trial.trial_id for trial in self._study.trials() if trial.trial in finals and not finals[trial.trial].verified}


def _is_feasible(trial: FrozenTrial) -> bool:
    return all(violation <= 0 for violation in trial.system_attrs.get(_CONSTRAINTS, ()))
