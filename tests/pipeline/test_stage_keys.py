"""Keys and events of every stage: the cache and the tables of an older study must stay readable."""

import math
from dataclasses import replace

import pytest

from autocut.deploy.finalize import measure_untouched
from autocut.errors import InfeasibleRecipeError
from autocut.measure.quiet import QuietLock
from autocut.measurement import Rung
from autocut.pipeline import measuring_stages, stage_runner
from autocut.pipeline.model_stages import train_stage
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.recipe import Recipe
from autocut.search.jobs import ModelLoaded, StageBroke, StageRan, StageStarted
from autocut.stages import lowering
from autocut.stages.train import fake_quantizers
from autocut.task.loading import load_task

PRUNED = {"prune.method": "structured", "prune.ratio": 0.5}
DISTILLED = Recipe({**PRUNED, "train.epochs": 1, "distill.loss": "kl", "curriculum.schedule": "linear"})
CHILD = Recipe({**PRUNED, "train.epochs": 1, "prune.ratio": 0.6, "prune.parent_ratio": 0.5})
FROM_SCRATCH = Recipe({"train.epochs": 1, "train.start": "scratch", "distill.loss": "kl"})
TOO_LITTLE = Recipe({**PRUNED, "prune.ratio": 0.01})

MEASURED = [
    "rung 1/4",
    "rung 2/4",
    "rung 3/4",
    "rung 4/4",
    "made baseline train training 066be92e",
    "made prune structured training 9514a02e",
    "made teacher logits training ba380ea2",
    "made difficulty teacher loss training 5fc6abfe",
    "rung 1/1",
    "made train linear/kl training 4d9c113c",
    "made quantize fp32 compiling 3b0cd2b1",
    "made convert fp32/onnxruntime compiling 853870fe",
    "made compile int8_dynamic/onnxruntime compiling a9ef76c6",
    "loaded int8_dynamic/onnxruntime",
    "made accuracy int8_dynamic measuring 7d262053",
    "made accuracy fp32 measuring 9ac5763b",
    "found compile int8_dynamic/onnxruntime compiling a9ef76c6",
    "made quantize fp32 compiling 5ff34e9f",
    "made compile fp32/eager compiling 4eb39343",
    "found compile fp32/eager compiling 4eb39343",
    "made cost fp32/eager measuring d521b0db",
    "found cost fp32/eager measuring d521b0db",
    "made cost int8_dynamic/onnxruntime measuring 9cceebc0",
]
MEASURED_AGAIN = [
    "found prune structured training 9514a02e",
    "found train linear/kl training 4d9c113c",
    "found accuracy int8_dynamic measuring 7d262053",
    "found accuracy fp32 measuring 9ac5763b",
    "found cost int8_dynamic/onnxruntime measuring 9cceebc0",
]
UNTOUCHED_ON_THE_TEST_SPLIT = [
    "made accuracy untouched/test measuring 4044336a",
    "found cost fp32/eager measuring d521b0db",
]
ITERATIVELY_PRUNED = [
    "found prune structured training 9514a02e",
    "rung 1/1",
    "made train none/none training aa7722ce",
    "made prune structured training c34322d7",
    "rung 1/1",
    "made train none/none training c0763631",
]
TRAINED_FROM_SCRATCH = [
    "made scratch build training 470abc39",
    "rung 1/1",
    "made train none/kl training 93e55ae6",
]


@pytest.fixture
def reported():
    """The events of the pipeline, a line each."""
    return []


@pytest.fixture
def pipeline(small_task_file, tmp_path, monkeypatch, reported):
    """A pipeline whose task, machine and libraries have identities that never change."""
    monkeypatch.setattr(stage_runner, "library_versions", lambda: {"torch": "1"})
    monkeypatch.setattr(measuring_stages, "machine_fingerprint", lambda: "machine")
    monkeypatch.setattr(lowering, "method_versions", lambda dtype, mode, *_: f"{dtype} {mode}")
    monkeypatch.setattr(lowering, "conversion_version", lambda mode, *_: mode)
    monkeypatch.setattr(lowering, "numerics", lambda dtype, mode, *_: dtype)
    task = load_task(small_task_file)
    vars(task)["fingerprint"] = "task"
    context = StageContext(task, StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"))
    return Pipeline(context, lambda event: None if isinstance(event, StageStarted) else reported.append(line(event)))


def line(event):
    """One line for an event of the pipeline."""
    match event:
        case StageRan():
            return f"{'found' if event.cached else 'made'} {event.stage} {event.method} {event.category} {event.key[:8]}"
        case StageBroke():
            return f"broke {event.category}"
        case ModelLoaded():
            return f"loaded {event.method}"
        case Rung():
            return f"rung {event.epoch}/{event.epochs}"


def test_stages_keep_their_keys_their_categories_and_their_order(pipeline, reported):
    """A key that changes makes every user train again; a changed order or category changes ledgers."""

    def events_of(run, *arguments):
        reported.clear()
        run(*arguments)
        return reported

    lowered = DISTILLED.with_lowering("int8_dynamic", "onnxruntime")
    assert events_of(pipeline.measure, lowered) == MEASURED
    assert events_of(pipeline.measure, lowered) == MEASURED_AGAIN
    assert events_of(measure_untouched, pipeline, math.inf, 60.0) == UNTOUCHED_ON_THE_TEST_SPLIT
    assert events_of(pipeline.prefix, CHILD) == ITERATIVELY_PRUNED
    assert events_of(pipeline.prefix, FROM_SCRATCH) == TRAINED_FROM_SCRATCH


def test_a_stage_that_breaks_is_reported_with_its_category(pipeline, reported):
    """Its seconds were worked all the same."""
    _ = pipeline.baseline
    reported.clear()
    with pytest.raises(InfeasibleRecipeError):
        pipeline.prefix(TOO_LITTLE)

    assert reported == ["broke training"]


def test_a_new_setting_of_a_training_makes_another_key_and_leaves_the_others_alone(pipeline, monkeypatch):
    """A version of a fake quantizer counts only where it is used."""

    def key(**settings):
        recipe = Recipe({"train.epochs": 1, **{f"train.{name}": value for name, value in settings.items()}})
        return train_stage(pipeline.runner, pipeline.teacher, pipeline.baseline, recipe).key

    def keys():
        return [
            key(),
            key(quantization_aware="int8"),
            key(ema=0.9),
            key(label_smoothing=0.1),
            key(input_growth="progressive_resizing"),
        ]

    before = keys()
    method = fake_quantizers.method("int8")
    monkeypatch.setitem(fake_quantizers._methods, "int8", replace(method, version=method.version + 1))

    assert len(set(before)) == 5
    assert key(quantization_aware="none", ema=0, label_smoothing=0, input_growth="none") == before[0]
    assert [one == other for one, other in zip(before, keys(), strict=True)] == [True, False, True, True, True]
