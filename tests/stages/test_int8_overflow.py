"""Int8 products are right on processors that sum them in 16 bits: on x86, those without VNNI instructions."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autocut.pipeline.parity import largest_deviation
from autocut.stages import lowering, processor
from autocut.stages.compile import ExampleCall, modes
from autocut.stages.compile.onnxruntime import EXACT_SUMS, load_onnxruntime
from autocut.stages.graph import Signature

_DEVIATION = 0.02
"""Rounding stays below it. An overflow costs 0.43 in these models."""


@pytest.fixture(params=["linear", "convolution"])
def heavy(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """A network whose products are as large as they can be: all weights and inputs are near the upper end of their range."""
    generator = torch.Generator().manual_seed(0)
    if request.param == "linear":
        network, inputs = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16)), torch.rand(16, 64, generator=generator)
    else:
        network = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten())
        inputs = torch.rand(16, 16, 6, 6, generator=generator)
    with torch.no_grad():
        for parameter in network.parameters():
            nn.init.uniform_(parameter, 0.8, 1.0, generator=generator) if parameter.dim() > 1 else nn.init.zeros_(parameter)
            parameter /= parameter[0].numel()
    return network.eval(), 0.7 + 0.3 * inputs


def _as_if(monkeypatch: pytest.MonkeyPatch, *, exact: bool) -> None:
    monkeypatch.setattr(processor, "sums_int8_in_32_bits", lambda: exact)


def _deviation(folder: Path, mode: str, heavy: tuple[nn.Module, Tensor]) -> float:
    network, inputs = heavy
    return largest_deviation(lowering.load(folder, mode)(inputs), network(inputs))


@pytest.mark.parametrize("mode", ["onnxruntime", "openvino"])
def test_large_products_do_not_overflow(mode: str, heavy: tuple[nn.Module, Tensor], tmp_path: Path):
    """On a processor without VNNI, nncf's own choice is wrong by 43% of the largest output."""
    pytest.importorskip(mode)
    lowering.lower(heavy[0], "int8_static", mode, [heavy[1]], tmp_path)

    assert _deviation(tmp_path, mode, heavy) < _DEVIATION


@pytest.mark.parametrize("mode", ["onnxruntime", "openvino"])
def test_a_model_of_another_processor_does_not_overflow(
    mode: str, heavy: tuple[nn.Module, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A bundle that was made where 8 bits are safe is loaded where they are not."""
    pytest.importorskip(mode)
    _as_if(monkeypatch, exact=True)
    lowering.lower(heavy[0], "int8_static", mode, [heavy[1]], tmp_path)
    _as_if(monkeypatch, exact=False)

    assert _deviation(tmp_path, mode, heavy) < _DEVIATION


def _int8_constants(model: Any) -> list[int]:
    """The largest number in each int8 constant of an OpenVINO model."""
    return [
        int(abs(node.data.astype("int16")).max())
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    ]


@pytest.mark.parametrize("exact", [True, False])
def test_openvino_has_7_bits_where_8_overflow(
    exact: bool, heavy: tuple[nn.Module, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All layers, not only the first; and no bit is given away on other processors."""
    openvino = pytest.importorskip("openvino")
    _as_if(monkeypatch, exact=exact)
    lowering.lower(heavy[0], "int8_static", "openvino", [heavy[1]], tmp_path)

    largest = _int8_constants(openvino.Core().read_model(tmp_path / "model.xml"))
    assert len(largest) == 2
    assert (max(largest) <= 64) is not exact


def test_weights_from_elsewhere_are_halved_once(heavy: tuple[nn.Module, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The numbers fit in 7 bits then, the model is still the same, and a model that fits is left alone."""
    openvino = pytest.importorskip("openvino")
    from autocut.stages.compile.openvino_overflow import keep_to_7_bits

    _as_if(monkeypatch, exact=True)
    lowering.lower(heavy[0], "int8_static", "openvino", [heavy[1]], tmp_path)
    model = openvino.Core().read_model(tmp_path / "model.xml")

    assert keep_to_7_bits(model) >= 1
    assert max(_int8_constants(model)) <= 64
    assert keep_to_7_bits(model) == 0


def test_weights_of_float_activations_keep_8_bits(heavy: tuple[nn.Module, Tensor]):
    """Nothing is summed as integers there, so a bit would be given away."""
    openvino = pytest.importorskip("openvino")
    import numpy as np

    from autocut.stages.compile.openvino_overflow import keep_to_7_bits

    operators = openvino.opset13
    inputs = operators.parameter([-1, 4], np.float32)
    numbers = operators.convert(operators.constant(np.full((4, 4), 127, np.int8)), "f32")
    weights = operators.multiply(numbers, operators.constant(np.ones((4, 1), np.float32)))
    model = openvino.Model([operators.matmul(inputs, weights, False, True)], [inputs])

    assert keep_to_7_bits(model) == 0
    assert _int8_constants(model) == [127]


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options of every session of ONNX Runtime that is opened, none of which is."""
    onnxruntime = pytest.importorskip("onnxruntime")
    seen: list[Any] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: seen.append(options))
    return seen


def _asks_for_exact_sums(options: Any) -> bool:
    name, value = EXACT_SUMS
    try:
        return bool(options.get_session_config_entry(name) == value)
    except RuntimeError:  # there is no such entry
        return False


@pytest.mark.parametrize("exact", [True, False])
def test_onnx_runtime_is_asked_for_exact_sums_only_where_they_overflow(
    exact: bool, sessions: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Since 1.25 it obeys on processors with VNNI too, which do not need it, and int8 became slower than fp32 there."""
    from autocut.stages.compile.onnx_comparison import open_session

    _as_if(monkeypatch, exact=exact)
    load_onnxruntime(tmp_path, Signature.of(torch.zeros(1, 2)), 1)
    open_session(b"")

    assert [_asks_for_exact_sums(options) for options in sessions] == [not exact, not exact]


@pytest.mark.parametrize(
    ("flags", "asks"),
    [("avx2 avx512f avx512_vnni", False), ("avx2 avx_vnni", False), ("avx2 avx512f", True), (None, True)],
    ids=["avx512_vnni", "avx_vnni", "neither", "another system"],
)
def test_the_readme_of_a_bundle_finds_out_whether_sums_overflow(
    flags: str | None, asks: bool, sessions: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its code runs on processors that autocut has not seen; where it cannot tell, being right comes before being fast."""
    lines = modes.method("onnxruntime").options.run_lines(ExampleCall(tmp_path, ("model.onnx",), ("x",), ("x",), 1))
    monkeypatch.setattr(Path, "exists", lambda _: flags is not None)
    monkeypatch.setattr(Path, "read_text", lambda _: f"flags : {flags}")
    exec(lines.partition("\narrays = ")[0], {})

    assert [_asks_for_exact_sums(options) for options in sessions] == [asks]


@pytest.mark.parametrize(
    ("architecture", "capabilities", "bits"),
    [
        ("x86_64", {"avx2": True, "avx_vnni": False, "avx512_vnni": False}, "7 bits"),
        ("x86_64", {"avx512_vnni": True}, "8 bits"),
        ("x86_64", {"avx_vnni": True}, "8 bits"),
        ("x86_64", {}, "7 bits"),
        ("aarch64", {"neon": True}, "8 bits"),
    ],
)
def test_the_processor_decides_the_bits(
    architecture: str, capabilities: dict[str, bool], bits: str, monkeypatch: pytest.MonkeyPatch
):
    """AVX has VNNI of its own, on processors without AVX512. Arm has no instruction that overflows."""
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    assert processor.int8_range() == bits
