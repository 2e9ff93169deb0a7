"""Slow scoring: a stated sample, free cores, and an early end. Fast scoring is as it was."""

import dataclasses

import numpy as np
import pytest

from autocut.errors import DeadlineError
from autocut.measure.quiet import QuietLock
from autocut.pipeline import scoring as module
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.scoring import SlowScoring, plan_scoring, sample_size, sampled, score
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import ScoringPlan
from autocut.task.loading import load_task

ORT = ("fp32", "onnxruntime")


@pytest.fixture
def make_pipeline(small_task_file, tmp_path):
    """Pipelines that share one cache, as workers do."""
    context = StageContext(load_task(small_task_file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"))
    return lambda **changes: Pipeline(dataclasses.replace(context, **changes))


@pytest.fixture
def slow(monkeypatch):
    """Every scoring counts as slow, and its chunks are single batches."""
    monkeypatch.setattr(module, "_SLOW_S", 0.0)
    monkeypatch.setattr(module, "_CHUNK_S", 0.0)


@pytest.mark.parametrize(
    ("of", "seconds_each", "seconds", "size"),
    [(256, 0.25, 14.4, 100), (256, 0.25, 60.0, 200), (256, 0.25, 65.0, 256), (5000, 0.25, 200.0, 800), (80, 0.25, 1.0, 80)],
)
def test_a_sample_is_as_large_as_its_seconds_allow(of, seconds_each, seconds, size):
    """At least 100 examples, and in steps: a second look at the clock gives the same number. BERT-base takes 0.25 s each."""
    assert sample_size(of, seconds_each, seconds) == size


def test_what_is_scored_within_five_seconds_is_scored_as_a_whole(make_pipeline):
    """Small tasks are not changed."""
    pipeline = make_pipeline()
    assert plan_scoring(pipeline.runner, pipeline.untouched_predict, budget_s=1.0) is None
    assert sample_size(10_000, 4.9 / 10_000, 0.1) == 10_000


def test_the_plan_is_said_in_one_line():
    """A person reads what was scored, and why not all."""
    plan = ScoringPlan(100, 256, 0.25)
    assert plan.describe() == "accuracy on 100 of 256 validation examples: scoring all would take 64 s a model on one core"


def test_a_sample_in_chunks_gives_the_scores_of_its_examples(make_pipeline, slow):
    """Oracle: the scores of the whole split, at the positions of the sample."""
    pipeline = make_pipeline()
    data = pipeline.runner.context.task.validation_data
    whole = score(pipeline.runner, pipeline.untouched_predict, data)
    positions = sampled(300, 100, seed=0)
    lent = []
    found = SlowScoring(pipeline.runner, positions, 1.0, lambda: lent.append(1)).score(pipeline.untouched_predict, data)

    assert np.array_equal(found.targets, whole.targets[positions])
    assert np.array_equal(found.scores, whole.scores[positions])
    assert len(lent) == -(-100 // pipeline.runner.context.task.batch_size)


def test_every_model_of_a_study_is_scored_on_the_same_sample(make_pipeline, slow):
    """The worker of the untouched model decides, the others are told. All have the paired difference."""
    first = make_pipeline()
    plan = first.plan_scoring(1e-9)
    untouched = first.measure(UNTOUCHED).measurement.accuracy
    second = make_pipeline(scoring=plan)
    lowered = second.measure(UNTOUCHED.with_lowering(*ORT)).measurement.accuracy

    assert (plan.examples, plan.of) == (100, 300)
    assert untouched.examples == lowered.examples == 100
    assert lowered.difference.value == pytest.approx(0.0, abs=0.02)


def test_a_model_that_is_far_off_is_not_scored_to_the_end(make_pipeline, slow):
    """Its accuracy is that of the examples that were scored, with their interval."""
    plan = make_pipeline().plan_scoring(1e9)
    ruined = Recipe({"prune.method": "structured", "prune.ratio": 0.75})
    early = make_pipeline(scoring=plan, max_drop=0.05).measure(ruined).measurement.accuracy
    whole = make_pipeline(scoring=plan).measure(ruined).measurement.accuracy

    assert plan.examples == whole.examples == 300
    assert 32 <= early.examples < 300
    assert early.difference.high < -0.05
    assert whole.difference.value < -0.05


def test_slow_scoring_ends_when_the_time_is_up(make_pipeline, slow):
    """At the next chunk."""
    pipeline = make_pipeline()
    predict, data = pipeline.untouched_predict, pipeline.runner.context.task.validation_data
    pipeline.runner.context = dataclasses.replace(pipeline.runner.context, stop=lambda: True)
    with pytest.raises(DeadlineError, match="while the model is scored"):
        SlowScoring(pipeline.runner, np.arange(300), 1.0).score(predict, data)
