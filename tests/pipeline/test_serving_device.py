"""A pipeline that serves on another device: its measurements have keys of their own, what it trains and exports has not."""

import pytest

from autocut.measure.quiet import QuietLock
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.recipe import Recipe
from autocut.search.jobs import StageRan
from autocut.stages.device import CPU, Device
from autocut.task.loading import load_task
from tests import second_device

SECOND = Device(second_device.KIND)
HALF = Recipe({"quantize.dtype": "bf16", "compile.mode": "eager"})
MEASURED = {"compile", "accuracy", "cost"}


@pytest.fixture
def make_pipeline(small_task_file, tmp_path, monkeypatch):
    """Pipelines that share one cache; `events` has what they report."""
    second_device.serve(monkeypatch)
    task = load_task(small_task_file)

    def make(served_on):
        events = []
        context = StageContext(task, StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"), served_on=served_on)
        return Pipeline(context, events.append), events

    return make


def test_a_model_is_lowered_scored_and_timed_where_it_is_served(make_pipeline, tmp_path, monkeypatch):
    """The accuracy is the CPU's here, to the last bit; on a GPU it would differ. Each timed call waits for the device."""
    monkeypatch.setattr("autocut.stages.lowering.infeasible_reason", lambda *_: None)  # of a CPU without bfloat16
    (here, seen_here), (there, seen_there) = make_pipeline(CPU), make_pipeline(SECOND)
    before = here.measure(HALF)
    second_device.module.calls.clear()
    measured = there.measure(HALF)
    keys, others = ({(event.stage, event.key) for event in seen if isinstance(event, StageRan)} for seen in (seen_here, seen_there))

    assert measured.measurement.accuracy == before.measurement.accuracy
    assert {stage for stage, _ in keys & others} == {"baseline", "quantize"}
    assert {stage for stage, _ in others - keys} == MEASURED
    assert second_device.module.calls.count("synchronize") > 64
    written = [path for path in (tmp_path / "stages").rglob("*") if path.is_file()]
    assert [path.name for path in written if b"second_device" in path.read_bytes()] == []


def test_the_untouched_model_runs_there_too(make_pipeline):
    """Every speed-up refers to it, so it must be timed in the same place."""
    there, _ = make_pipeline(SECOND)
    inputs = there.runner.context.samples.serving_inputs(8)

    assert there.runs_as_it_is("fp32", "eager")
    assert there.untouched_predict(inputs).device.type == "cpu"
    assert there.untouched_predict(SECOND.move_inputs(inputs)).device.type == second_device.KIND
    assert there.runner.served_on == {"served_on": "madeup"}
