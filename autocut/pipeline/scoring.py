"""Scoring a model on a split. Where that is slow: a sample, every free core, and an early end for models that are far off.

The examples of a sample come in a seeded order, the same for every model. So any first part of it is a random sample, and two
models can be compared on the part that both have. Between two chunks other processes may time, and a worker that starts gets its
core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocut.errors import DeadlineError
from autocut.measure.accuracy import Scores, score_model
from autocut.measure.early_verdict import looks
from autocut.pipeline.stage_runner import StageRunner
from autocut.search.jobs import ScoringPlan
from autocut.stages.lowering import Predict
from autocut.task.batches import Batch
from autocut.task.kinds import join_targets
from autocut.task.splits import Examples, length

SHARE = 0.04
"""Of the budget: what scoring one model may take."""
_SLOW_S = 5.0
"""A split that is scored within this time is always scored as a whole."""
_FEWEST = 100
_PROBE_S = 2.0
"""A probe with more examples is made only if it takes no longer."""
_CHUNK_S = 2.0


def plan_scoring(runner: StageRunner, predict: Predict, budget_s: float) -> ScoringPlan | None:
    """Time the untouched model on a few validation examples. None where scoring is fast: then nothing is sampled."""
    data = runner.context.task.validation_data
    of = length(data)
    with runner.working():
        seconds_each = _seconds_each(runner, predict, data)
    if seconds_each * of <= _SLOW_S:
        return None
    return ScoringPlan(sample_size(of, seconds_each, SHARE * budget_s if budget_s else np.inf), of, seconds_each)


def sample_size(of: int, seconds_each: float, seconds: float) -> int:
    """Return how many of `of` examples are scored in about `seconds`: all, or 100, 200, 400, ... of them."""
    if of * max(seconds_each, 1e-12) <= max(seconds, _SLOW_S):
        return of
    size = _FEWEST
    while 2 * size * seconds_each <= seconds:
        size *= 2
    return min(size, of)


def sampled(of: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of the first `count` of `of` examples in the order of `seed`."""
    return np.random.default_rng(seed).permutation(of)[:count]


def score(runner: StageRunner, predict: Predict, examples: Examples, batch_size: int | None = None) -> Scores:
    """Score every one of `examples` in one go, by default in the task's batches; raises what `score_model` raises."""
    task = runner.context.task
    with runner.working():
        return score_model(predict, task.loader(examples, batch_size or task.batch_size), task.metric_kind)


@dataclass(frozen=True)
class SlowScoring:
    """Scores a model on the examples at `positions`, a chunk at a time.

    `lend` is called before each chunk: it takes free cores and gives them back. `watch` sees all batches. Scoring ends when
    `is_decided(scores so far, number_of_looks=n)` is true at one of the n looks.
    """

    runner: StageRunner
    positions: NDArray[np.int64]
    seconds_each: float
    lend: Callable[[], object] = lambda: None
    is_decided: Callable[..., bool] | None = None
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter

    def score(self, predict: Predict, examples: Examples, batch_size: int | None = None) -> Scores:
        """Score the examples, by default in the task's batches; fewer of them where it is decided early.

        Raises what `score_model` raises, and `DeadlineError`.
        """
        task = self.runner.context.task
        size = batch_size or task.batch_size
        due = every = looks(len(self.positions)) if self.is_decided else []
        scores: list[Scores] = []
        done = 0
        for chunk in self._chunks(size):
            if self.runner.context.stop():
                raise DeadlineError("the time granted to the trial is up while the model is scored")
            self.lend()
            with self.runner.working():
                loader = task.loader(examples, size, indices=chunk)
                scores.append(score_model(predict, self.watch(loader), task.metric_kind))
            done += len(chunk)
            if self.is_decided and due and due[0] <= done < len(self.positions):
                due = [count for count in due if count > done]
                if self.is_decided(_joined(scores), number_of_looks=len(every)):
                    break
        return _joined(scores)

    def _chunks(self, batch: int) -> Iterator[NDArray[np.int64]]:
        size = batch * max(1, int(_CHUNK_S / (self.seconds_each * batch)))
        for start in range(0, len(self.positions), size):
            yield self.positions[start : start + size]


def _joined(parts: list[Scores]) -> Scores:
    return Scores(np.concatenate([part.scores for part in parts]), join_targets([part.targets for part in parts]))


def _seconds_each(runner: StageRunner, predict: Predict, data: Examples) -> float:
    """Time 2, 8, 32, ... examples, up to a batch, as long as all of them together look slow and a larger probe is quick."""
    task, of = runner.context.task, length(data)
    order = sampled(of, task.batch_size, runner.context.seed)
    size = 2  # not 1: a user's metric may squeeze its scores

    def probe() -> float:
        started = time.perf_counter()
        score_model(predict, task.loader(data, size, indices=order[:size]), task.metric_kind)
        return time.perf_counter() - started

    probe()  # the first call also pays for what is made once, such as the imports of a metric
    while True:
        seconds = probe()
        seconds_each = seconds / min(size, len(order))
        if seconds_each * of <= _SLOW_S or size >= len(order) or 4 * seconds > _PROBE_S:
            return seconds_each
        size *= 4
