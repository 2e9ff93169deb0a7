"""Calibration: how many activations it looks at, and that others may time between its batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13
from torch import Tensor, nn

from autocut.stages import calibration, lowering
from autocut.stages.calibration import affordable, asides, in_steps, numbers_of
from autocut.stages.compile import openvino_static
from autocut.stages.compile.openvino_comparison import numbers_of_model
from autocut.stages.graph import export_model
from autocut.stages.quantize import quantizers

CALIBRATED = [(dtype, mode) for dtype, mode in lowering.pairs() if dtype == "int8_static" and mode != "eager"]


def _with_marks(pair: tuple[str, str]) -> object:
    """A compiler that works while a model is lowered takes half a minute, and calibrates as `torch_compile` does."""
    return pytest.param(pair, id="/".join(pair), marks=[pytest.mark.slow] if pair[1] == "aot_inductor" else [])


@pytest.fixture(params=map(_with_marks, CALIBRATED))
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A dtype that calibrates, with a mode that runs it here."""
    if reason := lowering.infeasible_reason(*request.param):
        pytest.skip(reason)
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", [lambda x: x, lambda x: x.numpy(), lambda x: {"x": x}, lambda x: (x, x), lambda x: [x.numpy()]])
def test_too_many_activations_leave_the_first_examples_of_each_batch(form, monkeypatch):
    """Whatever a runtime takes as a batch; the forms stay."""
    monkeypatch.setattr(calibration, "MOST_NUMBERS", 60)
    batches = [form(torch.arange(24.0).reshape(8, 3)), form(torch.arange(9.0).reshape(3, 3))]

    few = affordable(batches, 6)  # 60 numbers are ten examples, five of each of two batches
    assert few.is_cut
    assert len(few) == 2
    assert [type(one) for one in few] == [type(one) for one in batches]
    assert [{len(array) for array in calibration._arrays(one)} for one in few] == [{5}, {3}]
    assert np.array_equal(calibration._arrays(few[0])[0], calibration._arrays(batches[0])[0][:5])

    assert {len(array) for one in affordable(batches, 10**9) for array in calibration._arrays(one)} == {1}


def test_what_is_affordable_is_left_as_it_is():
    """Most models are small: they are calibrated on all the examples."""
    batches = [torch.zeros(8, 3)]
    whole = affordable(batches, 6)
    assert not whole.is_cut
    assert whole[0] is batches[0]


@pytest.mark.parametrize("count", [1, 7])
def test_activations_are_those_of_one_example(count: int):
    """Oracle: by hand. Weights are no activations, and the batch of the export does not count."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)).eval()
    graph = export_model(model, torch.randn(count, 3, 6, 6)).module().graph
    assert numbers_of(graph) == 3 * 4 * 6 * 6 + 5


@pytest.mark.parametrize("length", [9, 20])
def test_activations_of_a_free_length_are_those_of_the_example(length: int):
    """The first calibration batch is the longest."""
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 5), nn.ReLU()).eval()
    graph = export_model(model, torch.zeros(6, length, dtype=torch.long), ((1,),)).module().graph
    assert numbers_of(graph) == length * (4 + 5 + 5)


def test_static_int8_looks_at_a_bounded_number_of_activations(monkeypatch, tiny_cnn: nn.Module, cnn_inputs: Tensor):
    """256 images of 160 pixels in ResNet-50 take minutes."""
    seen: list[int] = []
    call = quantizers["int8_static"].__globals__["call"]
    monkeypatch.setitem(
        quantizers["int8_static"].__globals__, "call", lambda model, batch: seen.append(len(batch)) or call(model, batch)
    )
    for most in (10**9, 1):
        monkeypatch.setattr(calibration, "MOST_NUMBERS", most)
        quantizers["int8_static"](tiny_cnn, [cnn_inputs, cnn_inputs])
    assert seen == [len(cnn_inputs)] * 2 + [1, 1]


def test_static_int8_of_openvino_looks_at_a_bounded_number_of_activations(
    monkeypatch, tiny_cnn: nn.Module, cnn_inputs: Tensor, tmp_path: Path
):
    """What it looks at is what ONNX Runtime and torch look at."""
    if reason := lowering.infeasible_reason("int8_static", "openvino"):
        pytest.skip(reason)
    seen: list[int] = []
    quantized = openvino_static._quantized
    monkeypatch.setattr(
        openvino_static, "_quantized",
        lambda model, feeds, *rest: seen.extend(len(feed[0]) for feed in feeds) or quantized(model, feeds, *rest),
    )  # fmt: skip
    monkeypatch.setattr(calibration, "MOST_NUMBERS", 1)
    lowering.lower(tiny_cnn, "int8_static", "openvino", [cnn_inputs] * 2, tmp_path)
    assert set(seen) == {1}


@pytest.mark.parametrize("count", [1, 4])
def test_activations_of_an_openvino_model_are_those_of_one_example(count: int):
    """Oracle: by hand. The batch is free, and neither weights nor inputs are activations."""
    if reason := lowering.infeasible_reason("fp32", "openvino"):
        pytest.skip(reason)
    inputs = opset13.parameter([-1, 8], np.float32)
    product = opset13.matmul(inputs, opset13.constant(np.ones((8, 5), np.float32)), False, False)
    model = openvino.Model([opset13.relu(product)], [inputs])
    assert numbers_of_model(model, [np.ones((count, 8), np.float32)]) == 5 + 5


def test_others_may_time_between_two_batches_of_a_calibration(
    pair: tuple[str, str], tiny_cnn: nn.Module, cnn_inputs: Tensor, tmp_path: Path
):
    """A calibration takes a minute and more; who waits for the machine would wait for its end."""
    counts = []
    for batches in (2, 12):
        calls: list[int] = []
        with asides(lambda calls=calls: calls.append(1)):
            (folder := tmp_path / str(batches)).mkdir()
            lowering.lower(tiny_cnn, *pair, [cnn_inputs] * batches, folder)
        counts.append(len(calls))
    assert counts[1] >= counts[0] + 10


def test_steps_are_the_steps():
    """Before and after each one, others may time; where nobody is named, nothing happens."""
    log: list[object] = []
    with asides(lambda: log.append("aside")):
        log.extend(in_steps("AB"))
    assert log == ["aside", "A", "aside", "B", "aside"]
    assert list(in_steps([1, 2])) == [1, 2]
