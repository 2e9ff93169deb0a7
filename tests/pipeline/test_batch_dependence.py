"""Answers that depend on the batch around an example are found, and such a model is scored as it is served."""

import dataclasses

import numpy as np
import pytest
import torch

from autocut.measure.accuracy import Scores
from autocut.measure.quiet import QuietLock
from autocut.pipeline.batch_dependence import depends_on_batch, worst_of
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.recipe import Recipe
from autocut.search.jobs import ScoringPlan
from autocut.task.kinds import kinds
from autocut.task.loading import load_task

BATCH = torch.arange(1.0, 17.0)[:, None]


def scaled(inputs):
    """A model with one scale for the whole batch, as ONNX Runtime's dynamic int8 has."""
    scale = inputs.abs().max() / 127
    return torch.round(inputs / scale) * scale


def fixed(inputs):
    """A model with a scale of its own, as static int8 has."""
    return torch.round(inputs * 8) / 8


@pytest.mark.parametrize("sizes", [(1, 32), (1, 4), (2, 32), (16, 32)])
def test_a_scale_of_the_whole_batch_is_found(sizes):
    """At whatever sizes it is served. At 16, 32 repeated rows have the scale of the 16, so nothing changes."""
    assert depends_on_batch(scaled, BATCH, sizes, "int8_dynamic") == (sizes != (16, 32))
    assert not depends_on_batch(fixed, BATCH, sizes, "int8_dynamic")


def test_another_answer_in_a_large_batch_alone_is_found():
    """A kernel for large batches may be another one."""
    assert depends_on_batch(lambda inputs: inputs * (1.1 if len(inputs) > 16 else 1.0), BATCH, (1, 32), "fp32")


def test_rounding_of_16_bits_does_not_count():
    """Kernels for other sizes sum in another order."""
    assert not depends_on_batch(lambda inputs: inputs * (1.01 if len(inputs) == 1 else 1.0), BATCH, (1, 32), "bf16")


def test_a_slow_model_is_asked_six_examples():
    """Each call of it is precious."""
    asked = []

    def slow(inputs):
        asked.append(len(inputs))
        return fixed(inputs)

    assert not depends_on_batch(slow, BATCH, (1, 32), "int8_dynamic", is_slow=True)
    assert asked == [4, 1, 1]
    assert depends_on_batch(scaled, BATCH, (1, 32), "int8_dynamic", is_slow=True)


def test_the_serving_size_with_the_lower_metric_counts():
    """What is promised must hold at every size that is served."""
    kind = kinds["classification"]()
    right = {1: [1.0, 1.0, 0.0], 32: [1.0, 0.0, 0.0]}
    size, scores = worst_of((1, 8, 32), lambda size: Scores(np.array(right[size]), np.zeros(3)), kind)
    assert size == 32
    assert scores.scores.tolist() == right[32]


@pytest.mark.parametrize("plan", [None, ScoringPlan(100, 300, 0.001)])
def test_dynamic_int8_of_onnxruntime_is_scored_at_a_serving_size_and_says_so(small_task_file, tmp_path, monkeypatch, plan):
    """Static int8 and floats are scored in the task's batches, whose answers are the same."""
    context = StageContext(load_task(small_task_file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"))
    pipeline = Pipeline(dataclasses.replace(context, scoring=plan))
    sizes, loader = [], type(context.task).loader

    def spied(task, dataset, batch_size, *args, **more):
        sizes.append(batch_size)
        return loader(task, dataset, batch_size, *args, **more)

    _ = pipeline.baseline
    monkeypatch.setattr(type(context.task), "loader", spied)
    accuracy = pipeline.accuracy(pipeline.baseline, "int8_dynamic", "onnxruntime")
    assert accuracy.batch_size in context.task.serving_batch_sizes
    assert {1, 8} <= set(sizes)
    assert accuracy.examples == (300 if plan is None else 100)
    assert pipeline.scored_batch_size(pipeline.baseline, "int8_dynamic", "onnxruntime") == accuracy.batch_size
    assert pipeline.accuracy(pipeline.baseline, "int8_static", "onnxruntime").batch_size is None
    assert pipeline.accuracy(pipeline.baseline, "fp32", "eager").batch_size is None
    assert pipeline.measure(Recipe().with_lowering("int8_dynamic", "onnxruntime")).measurement.accuracy == accuracy
