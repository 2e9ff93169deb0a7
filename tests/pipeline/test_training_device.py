"""A pipeline that trains on another device: other keys, nothing of the device on disk, and one training at a time."""

import pytest
import torch

from autocut.errors import DeadlineError
from autocut.measure.quiet import QuietLock
from autocut.measurement import Rung
from autocut.pipeline import model_stages
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext, StageRunner, charged_s
from autocut.recipe import Recipe
from autocut.search.jobs import StageRan
from autocut.stages.train import CPU, Device
from autocut.task.loading import load_task
from tests import second_device

SECOND = Device(second_device.KIND)
TAUGHT = Recipe(
    {"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 1, "distill.loss": "kl", "curriculum.schedule": "linear"}
)
TRAINED = {"baseline", "prune", "teacher", "difficulty", "train"}


@pytest.fixture
def make_pipeline(small_task_file, tmp_path):
    """Pipelines that share one cache; `events` has what they report."""

    def make(device, **changes):
        events = []
        cache, quiet = StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks")
        context = StageContext(load_task(small_task_file), cache, quiet, device=device, **changes)
        return Pipeline(context, events.append), events

    return make


def test_what_a_gpu_trains_is_stored_under_other_keys_and_holds_nothing_of_it(make_pipeline, tmp_path):
    """The weights are those of the CPU here, the keys are not: on a GPU their last bits would differ."""
    here, seen_here = make_pipeline(CPU)
    there, seen_there = make_pipeline(SECOND)
    models = here.prefix(TAUGHT), there.prefix(TAUGHT)
    keys_here, keys_there = (
        {event.stage: event.key for event in seen if isinstance(event, StageRan)} for seen in (seen_here, seen_there)
    )
    rungs_here, rungs_there = ([event for event in seen if isinstance(event, Rung)] for seen in (seen_here, seen_there))

    assert set(keys_here) == set(keys_there) == TRAINED
    assert not set(keys_here.values()) & set(keys_there.values())
    assert rungs_here == rungs_there
    torch.testing.assert_close(models[1].model.state_dict(), models[0].model.state_dict(), rtol=0, atol=0)
    written = [path for path in (tmp_path / "stages").rglob("*") if path.is_file()]
    assert len(written) > 10
    assert [path.name for path in written if b"second_device" in path.read_bytes()] == []
    served = [pipeline.accuracy(model, "fp32", "onnxruntime") for pipeline, model in zip((here, there), models, strict=True)]
    assert served[0] == served[1]


def test_no_key_of_what_is_not_trained_names_the_device(make_pipeline):
    """A study may share what the CPU makes in any case; the golden keys of `test_stage_keys` are those of the CPU."""
    here, there = (make_pipeline(device)[0].runner for device in (CPU, SECOND))

    assert here.trained_on == {}
    for stage in (model_stages.scratch_stage, model_stages.untrained_stage):
        assert stage(here).key == stage(there).key
    assert model_stages.untouched_key(here, 4) != model_stages.untouched_key(there, 4)


def test_what_trains_in_another_way_is_stored_under_other_keys(make_pipeline):
    """No model of a study is a mixture of both, and a GPU's keys name its precision beside the device."""
    ways = CPU, Device(precision="bf16"), Device("cuda", "bf16"), Device(memory_format="channels_last")
    plain, mixed, on_gpu, last = (make_pipeline(way)[0].runner for way in ways)

    assert plain.trained_on == {}
    assert last.trained_on == {"memory_format": "channels_last"}
    assert model_stages.untouched_key(plain, 4) != model_stages.untouched_key(last, 4)
    assert mixed.trained_on == {"precision": "bf16"}
    assert on_gpu.trained_on == {"device": "cuda", "precision": "bf16"}
    assert model_stages.scratch_stage(plain).key == model_stages.scratch_stage(mixed).key
    assert model_stages.untouched_key(plain, 4) != model_stages.untouched_key(mixed, 4)


def test_weights_that_the_task_brings_are_of_no_device(small_task_file, make_pipeline):
    """Nothing trains them."""
    small_task_file.write_text(small_task_file.read_text().replace("pretrained=False", "pretrained=True"))
    keys = {model_stages.untouched_key(make_pipeline(device)[0].runner, 4) for device in (CPU, SECOND)}

    assert len(keys) == 1


def test_a_training_on_a_gpu_is_charged_by_its_wall_seconds(make_pipeline):
    """The processor waits for it, or does something else: its CPU seconds say little."""
    there, _ = make_pipeline(SECOND, threads=4)
    entry = there.runner.cache.find(there.baseline.key)

    assert entry.facts["device"] == second_device.KIND
    assert entry.facts["train_seconds"] == entry.facts["wall_seconds"]
    assert charged_s(there.teacher.logits, 4) == there.teacher.logits.seconds


def test_a_gpu_trains_one_model_at_a_time_and_the_cpu_many(make_pipeline):
    """Two might not fit in its memory. Who waits for it ends at its deadline, and gives no other work a reason to wait."""
    holder, _ = make_pipeline(SECOND)
    waiting, _ = make_pipeline(SECOND, stop=lambda: True)
    beside, _ = make_pipeline(CPU, stop=lambda: True)

    with holder.runner.training():
        with pytest.raises(DeadlineError, match="while it waited for the GPU"), waiting.runner.training():
            pytest.fail("two trainings on one GPU")
        with beside.runner.training() as device, beside.runner.working():
            assert device.is_cpu
    with make_pipeline(SECOND)[0].runner.training() as device:
        assert device == SECOND


def test_nobody_waits_for_a_gpu_while_others_wait_for_him(make_pipeline):
    """Who has the GPU takes the quiet lock at each batch: the two would wait for each other for ever."""
    runner: StageRunner = make_pipeline(SECOND)[0].runner

    with runner.working(), pytest.raises(RuntimeError, match="cannot wait for a GPU"), runner.training():
        pytest.fail("it waited")


def test_a_gpu_gives_its_memory_back_after_a_training(make_pipeline):
    """Another process trains next."""
    second_device.module.calls.clear()
    with make_pipeline(SECOND)[0].runner.training():
        assert second_device.module.calls == ["init"]

    assert second_device.module.calls == ["init", "empty_cache"]
