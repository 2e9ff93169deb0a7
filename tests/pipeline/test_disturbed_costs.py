"""A disturbed timing is repeated when its cost is asked for again, and a calm one is kept."""

import dataclasses

import pytest

from autocut import measurement
from autocut.measure.quiet import QuietLock
from autocut.measurement import Interval, Latency
from autocut.pipeline.measuring_stages import Timing
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.task.loading import load_task


@pytest.fixture
def timed(small_task_file, tmp_path, monkeypatch):
    """Return a function: the cost of a structure in a fresh worker; `planted` has the disturbances of its timings, in order."""
    monkeypatch.setattr(measurement, "UNDISTURBED", 1.2)
    planted = []

    def latency(self, model, baseline, batch_size, samples):
        one = Interval(1.0, 1.0, 1.0)
        return Latency(batch_size, 64, one, None, None, 1.0, one, 1.0)

    def undisturbed(measure, reference, stop):
        factor = planted[0] if reference.batch_size == 1 else planted.pop(0)
        return dataclasses.replace(measure(), disturbance=factor)

    monkeypatch.setattr(Timing, "_latency", latency)
    monkeypatch.setattr("autocut.pipeline.measuring_stages.measure_undisturbed", undisturbed)

    def cost():
        context = StageContext(load_task(small_task_file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"))
        pipeline = Pipeline(context)
        return pipeline.cost(pipeline.baseline, "fp32", "onnxruntime")

    return planted, cost


def test_a_disturbed_cost_is_timed_again_by_the_next_who_asks(timed):
    """The machine may be calm by then. What is calm is never timed again."""
    planted, cost = timed
    planted += [3.0, 1.1, 1.0]
    assert cost().disturbance == 3.0
    assert cost().disturbance == 1.1
    assert cost().disturbance == 1.1
    assert planted == [1.0]


def test_a_machine_that_is_never_calm_is_given_up_and_the_least_disturbed_timing_counts(timed):
    """A search on a busy machine must not time one structure for ever."""
    planted, cost = timed
    planted += [3.0, 2.0, 2.5, 1.0]
    assert [cost().disturbance for _ in range(4)] == [3.0, 2.0, 2.0, 2.0]
    assert planted == [1.0]


@pytest.mark.parametrize(("samples", "timings"), [(64, 0), (65, 1)])
def test_a_final_timing_that_would_have_no_more_rounds_is_left_out(small_task_file, tmp_path, monkeypatch, samples, timings):
    """ResNet-50 alone knows its p90, in batches of 32 it never will: to time both once more takes the machine half a minute."""
    log = []

    def latency(self, model, baseline, batch_size, samples):
        log.append(batch_size)
        one, is_quick = Interval(1.0, 1.0, 1.0), batch_size == 1
        return Latency(batch_size, 64 if is_quick else 6, one, 1.2 if is_quick else None, None, 1.0, one, 1.0)

    monkeypatch.setattr(Timing, "_latency", latency)
    context = StageContext(load_task(small_task_file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"))
    pipeline = Pipeline(context)
    model, lowering = pipeline.baseline, ("fp32", "onnxruntime")
    pipeline.cost(model, *lowering)
    log.clear()

    pipeline.final_cost(model, *lowering, pipeline.artifact(model, *lowering), samples)
    assert log == [1, 8] * timings
