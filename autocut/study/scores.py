"""The stored validation scores of trials, and the paired tests between them. No torch.

A scores stage (`autocut.pipeline.measuring_stages`) leaves one file in the stage cache. The table of stage runs says which trial
ran which scores stage. Every trial also ran that of the untouched model, with which it was compared. So a trial's own scores
are the last other ones; a trial that ran no others runs the untouched model's graph, and shares its scores.

A cache evicts what was unused for longest, and a study may have been copied without its stages. Then a pair has no p-value.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session as Database

from autocut.front import FrontPoint
from autocut.measurement import UNTOUCHED_TEST
from autocut.paired import Scored, compare_pair, holm, pairs_of
from autocut.recipe import UNTOUCHED
from autocut.study.records import StageRow, StageRun

SCORES_STAGE = "accuracy"
_FILE = Path("output", "scores.npz")


@dataclass(frozen=True)
class ScoresRun:
    """A scores stage that a recipe ran: its key and method, and the recipe's fingerprint."""

    key: str
    method: str
    fingerprint: str


_SCORES_RUNS = TypeAdapter(list[ScoresRun])


def read_scores_runs(database: Database, study: str) -> list[ScoresRun]:
    """Return the scores stages that a study has run, oldest first."""
    columns = select(StageRow.key, StageRow.method, StageRow.fingerprint)
    wanted = columns.where(StageRow.study == study, StageRow.stage == SCORES_STAGE).order_by(StageRow.id)
    return _SCORES_RUNS.validate_python([row._asdict() for row in database.execute(wanted)])


@dataclass(frozen=True)
class Compared:
    """What the paired tests found of some trials.

    `p_values` takes the number of comparisons into account. `untested` are the trials without scores to compare.
    """

    p_values: dict[tuple[int, int], float]
    untested: tuple[int, ...]


class TrialScores:
    """Compares trials by their scores in `stages`. It keeps what it has read and tested, so each pair is tested once.

    `read_runs` returns the scores stages that the study has run, oldest first. It is called again after `forget`.
    """

    def __init__(self, stages: Path, read_runs: Callable[[], Iterable[ScoresRun]]) -> None:
        self._stages = stages
        self._read_runs = read_runs
        self._keys: dict[str, list[str]] | None = None
        self._own: dict[str, list[str]] = {}
        self.version = 0
        """Another number where another comparison of the same points may find something else."""
        self._scored: dict[tuple[str, float], Scored | None] = {}
        self._found: dict[tuple[str, str], float | None] = {}

    def forget(self) -> None:
        """Read the stage runs again before the next comparison: the study has changed."""
        self._keys = None
        self._own.clear()
        self.version += 1

    def add(self, run: StageRun) -> None:
        """Take in a stage that has just run."""
        if self._keys is not None and run.stage == SCORES_STAGE:
            self._add(self._keys, ScoresRun(run.key, run.method, run.fingerprint))
            self._own.clear() if run.fingerprint == UNTOUCHED.fingerprint else self._own.pop(run.fingerprint, None)
            self.version += 1

    def compare(self, points: Sequence[FrontPoint], tried: Sequence[FrontPoint] = ()) -> Compared:
        """Test every pair of `points`, and take the number of comparisons into account (Holm).

        `tried` are the trials from which `points` were chosen, because they looked best. The best of many looks better than the
        untouched model by luck alone, so each model that was tried counts as a comparison. Trials that share one model and its
        scores are equal without a test.
        """
        found = {point.trial: self._find(point) for point in points}
        known = {trial: scores for trial, scores in found.items() if scores is not None}
        by_key = dict(known.values())
        tests = {pair: p_value for pair in pairs_of(sorted(by_key)) if (p_value := self._test(pair, by_key)) is not None}
        models = {key for point in tried for key in self._keys_of(point.recipe.fingerprint)[:1]}
        adjusted = holm(tests, len(models - by_key.keys()))
        p_values = {}
        for one, other in pairs_of(sorted(known)):
            first, second = sorted((known[one][0], known[other][0]))
            if first == second or (first, second) in adjusted:
                p_values[one, other] = adjusted.get((first, second), 1.0)
        paired = {trial for pair in p_values for trial in pair}
        alone = len(found) < 2  # there is nothing to compare it with
        return Compared(p_values, () if alone else tuple(trial for trial in sorted(found) if trial not in paired))

    def _find(self, point: FrontPoint) -> tuple[str, Scored] | None:
        """Return the scores of a trial with their key. They must give the metric that was recorded of it."""
        metric = point.measurement.accuracy.metric.value
        for key in self._keys_of(point.recipe.fingerprint):
            if (key, metric) not in self._scored:
                self._scored[key, metric] = self._read(key, point)
            if (found := self._scored[key, metric]) is not None:
                return key, found
        return None

    def _keys_of(self, fingerprint: str) -> list[str]:
        if (own := self._own.get(fingerprint)) is None:
            own = self._own[fingerprint] = self._find_keys(fingerprint)
        return own

    def _find_keys(self, fingerprint: str) -> list[str]:
        if self._keys is None:
            keys: dict[str, list[str]] = {}
            for run in self._read_runs():
                self._add(keys, run)
            self._keys = keys
        untouched = self._keys.get(UNTOUCHED.fingerprint, [])
        known = self._keys.get(fingerprint, [])
        own = [key for key in reversed(known) if key not in untouched]
        return own or list(reversed(known))

    @staticmethod
    def _add(keys: dict[str, list[str]], run: ScoresRun) -> None:
        if run.method != UNTOUCHED_TEST:
            known = keys.setdefault(run.fingerprint, [])
            with contextlib.suppress(ValueError):
                known.remove(run.key)
            known.append(run.key)

    def _read(self, key: str, point: FrontPoint) -> Scored | None:
        accuracy = point.measurement.accuracy
        try:
            # numpy leaves a damaged file open that it has opened itself (2.4).
            with (self._stages / "entries" / key / _FILE).open("rb") as file, np.load(file, allow_pickle=False) as saved:
                scored = Scored(saved["scores"], saved["targets"], accuracy.metric.value)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # evicted, or damaged: the cache makes it again when it is needed
        return scored if len(scored.scores) == accuracy.examples and scored.test is not None else None

    def _test(self, pair: tuple[str, str], scored: dict[str, Scored]) -> float | None:
        if pair not in self._found:
            one, other = pair
            self._found[pair] = compare_pair(scored[one], scored[other])
        return self._found[pair]
