"""Parity: a wrong export ends before a number of it counts; rounding does not end it."""

import math

import pytest
import torch

from autocut.errors import InfeasibleRecipeError
from autocut.measure.quiet import QuietLock
from autocut.pipeline.parity import largest_deviation, require_agreement
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.recipe import Recipe
from autocut.stages import lowering
from autocut.task.loading import load_task

ANSWERS = torch.tensor([[1.0, -4.0], [0.5, 2.0]])


@pytest.fixture
def pipeline(small_task_file, tmp_path):
    """A pipeline on the small task."""
    return Pipeline(StageContext(load_task(small_task_file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks")))


@pytest.mark.parametrize(
    ("found", "dtype", "told"),
    [
        (ANSWERS[:, :1], "fp32", "shape of its model, (2, 2), got (2, 1)"),
        (ANSWERS + 0.1, "fp32", "deviation of 2.50%"),
        (ANSWERS.flip(1), "int8_static", "deviation of 125.00%"),
        (ANSWERS * torch.tensor([1.0, math.nan]), "int8_static", "deviation of inf%"),
    ],
)
def test_a_wrong_answer_is_refused_with_the_largest_deviation(found, dtype, told):
    """A person sees at once whether it is rounding or another model."""
    with pytest.raises(InfeasibleRecipeError) as refused:
        require_agreement(found, ANSWERS, dtype)
    assert told in str(refused.value)


@pytest.mark.parametrize(("found", "dtype"), [(ANSWERS * 1.001, "fp32"), (ANSWERS * 1.1, "bf16"), (ANSWERS * 1.5, "int8_dynamic")])
def test_rounding_and_a_poor_quantizer_agree(found, dtype):
    """How good the quantizer is, the accuracy tells."""
    require_agreement(found, ANSWERS, dtype)


def test_answers_that_are_infinite_on_purpose_agree_with_themselves_alone():
    """A masked logit is minus infinity in both."""
    masked = torch.tensor([-math.inf, 2.0])
    assert largest_deviation(masked, masked) == 0.0
    assert largest_deviation(torch.tensor([0.0, 2.0]), masked) == math.inf
    assert largest_deviation(torch.tensor([-math.inf, math.inf]), masked) == math.inf
    assert largest_deviation(torch.zeros(3), torch.zeros(3)) == 0.0


def test_a_wrong_export_is_neither_timed_nor_scored(pipeline, monkeypatch):
    """It ends as infeasible, so it is not tried again and costs no finalization."""
    load = lowering.load

    def wrong(folder, mode, threads, device):
        predict = load(folder, mode, threads, device)
        return lambda inputs: predict(inputs) * 2

    monkeypatch.setattr(lowering, "load", wrong)
    for dtype in ("fp32", "int8_dynamic"):
        monkeypatch.setattr(pipeline._timing.__class__, "_latency", lambda *_: pytest.fail("a wrong export was timed"))
        with pytest.raises(InfeasibleRecipeError, match="must answer as its model does"):
            pipeline.open(pipeline.artifact(pipeline.baseline, dtype, "onnxruntime"), pipeline.baseline, dtype, "onnxruntime")


def test_an_artifact_is_checked_once_and_its_model_answers_once(pipeline, monkeypatch):
    """Scoring and timing load the same artifact, and a call of a slow model is precious."""
    asked = []
    monkeypatch.setattr("autocut.pipeline.parity.require_agreement", lambda found, wanted, dtype: asked.append(dtype))
    answered = pipeline._parity._answers
    calls = []
    monkeypatch.setattr(pipeline._parity, "_answers", lambda source: calls.append(1) or answered(source))

    for dtype in ("int8_dynamic", "int8_static"):
        pipeline.measure(Recipe().with_lowering(dtype, "onnxruntime"))
    assert sorted(asked) == ["int8_dynamic", "int8_static"]
    assert len(calls) == 1


def test_a_slow_model_answers_one_served_batch(pipeline, monkeypatch):
    """A calibration batch of BERT-base would take ten seconds."""
    monkeypatch.setattr("autocut.pipeline.parity._LONG_S", 0.0)
    inputs, answers = pipeline._parity._answers(lambda inputs: inputs)
    assert len(inputs) == len(answers) == min(pipeline.runner.context.task.serving_batch_sizes)
