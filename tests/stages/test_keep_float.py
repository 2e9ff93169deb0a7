"""Static int8 that keeps layers in float: on demand, and where a layer would spoil the outputs."""

from __future__ import annotations

from pathlib import Path

import onnx
import openvino
import pytest
import torch
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages import calibration, lowering
from autocut.stages.compile import onnx_static

PAIRS = [pair for pair in lowering.pairs() if lowering.infeasible_reason(*pair) is None]


class Spread(nn.Module):
    """Its second layer reads numbers of very different sizes, as the power of a spectrogram has: (n, 32) -> (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.out = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """The logarithm makes the small ones count as much as the large ones."""
        powers = self.first(x).mul(2.5).exp()
        return self.out(self.third(torch.log(self.second(powers).abs() + 1e-4)))


@pytest.fixture(name="model")
def _model() -> nn.Module:
    model = Spread().eval()
    with torch.no_grad():
        model.second.weight.copy_(torch.eye(32))
        model.second.bias.zero_()
    return model


INPUTS = torch.randn(64, 32, generator=torch.Generator().manual_seed(1)) * 2


def quantized_layers(folder: Path) -> list[bool]:
    """Whether each product of an ONNX file has int8 weights. One that has not reads nothing that was rounded, either."""
    graph = onnx.load(folder / "model.onnx").graph
    stored = {tensor.name for tensor in graph.initializer}
    dequantized = {node.output[0]: node.input[0] in stored for node in graph.node if node.op_type == "DequantizeLinear"}
    found = []
    for node in graph.node:
        if node.op_type in ("Gemm", "MatMul"):
            found.append(any(dequantized.get(name, False) for name in node.input[:2]))
            assert found[-1] or not dequantized.keys() & set(node.input)
    return found


def test_a_layer_that_would_spoil_the_outputs_stays_float_unasked(model: nn.Module, tmp_path: Path):
    """Quantized as well, it costs a spectrogram's model half of its accuracy."""
    lowering.lower(model, "int8_static", "onnxruntime", [INPUTS], tmp_path)

    assert quantized_layers(tmp_path) == [True, False, True, True]
    answer, wanted = lowering.load(tmp_path, "onnxruntime")(INPUTS), model(INPUTS)
    assert (answer - wanted).norm() < 0.15 * (wanted - wanted.mean(0)).norm()


def test_as_many_layers_stay_float_as_were_asked_for(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """The recipe names the number, the scan finds the layers; the answers come nearer to the float model's."""
    deviations = []
    for kept in (0, 1, 2):
        (folder := tmp_path / str(kept)).mkdir()
        lowering.lower(tiny_mlp, f"int8_static:{kept}" if kept else "int8_static", "onnxruntime", [mlp_inputs], folder)
        assert sum(quantized_layers(folder)) == 3 - kept
        deviations.append(float((lowering.load(folder, "onnxruntime")(mlp_inputs) - tiny_mlp(mlp_inputs)).detach().norm()))

    assert deviations[2] < deviations[0]


def test_openvino_keeps_as_many_layers_as_were_asked_for(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """Those that deviate the outputs the most alone, as in ONNX Runtime."""
    if reason := lowering.infeasible_reason("int8_static:1", "openvino"):
        pytest.skip(reason)
    deviations = []
    for kept in (0, 1, 2):
        (folder := tmp_path / str(kept)).mkdir()
        lowering.lower(tiny_mlp, f"int8_static:{kept}" if kept else "int8_static", "openvino", [mlp_inputs], folder)
        nodes = openvino.Core().read_model(folder / "model.xml").get_ops()
        stored = [node for node in nodes if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"]
        assert len(stored) == 3 - kept
        deviations.append(float((lowering.load(folder, "openvino")(mlp_inputs) - tiny_mlp(mlp_inputs)).detach().norm()))

    assert deviations[2] < deviations[0]


def test_a_model_whose_every_layer_is_kept_is_infeasible(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """It would be the float model under another name."""
    with pytest.raises(InfeasibleRecipeError, match="must change at least one layer"):
        lowering.lower(tiny_mlp, "int8_static:3", "onnxruntime", [mlp_inputs], tmp_path)


def test_products_of_two_activations_stay_float(tiny_transformer: nn.Module, transformer_inputs: Tensor, tmp_path: Path):
    """Attention has no weights there, and loses the most."""
    lowering.lower(tiny_transformer, "int8_static", "onnxruntime", [transformer_inputs], tmp_path)
    nodes = onnx.load(tmp_path / "model.onnx").graph.node

    stored = {tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    weights = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear" and node.input[0] in stored}
    dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    for node in nodes:
        if node.op_type == "MatMul" and not weights.union(stored).intersection(node.input):
            assert not dequantized.intersection(node.input)


@pytest.mark.parametrize(("dtype", "mode"), [pair for pair in PAIRS if not lowering.keeps_float(*pair)])
def test_a_pair_that_cannot_keep_layers_says_so(dtype: str, mode: str):
    """A knob without effect is no recipe."""
    assert "in float" in str(lowering.infeasible_reason(f"{dtype}:4", mode))


def test_layers_in_float_are_another_arithmetic_and_another_artifact():
    """Accuracy and files are shared by these names; those of before stay as they were."""
    for name in (lowering.numerics, lowering.method_versions):
        kept = name("int8_static:4", "onnxruntime")
        assert "4 layers in float" in kept
        assert kept.replace(", 4 layers in float", "") == name("int8_static", "onnxruntime")


def test_a_large_model_is_not_scanned(monkeypatch, tmp_path):
    """A scan of BERT-base would write and load 74 times 440 MB: layers that are asked for are refused."""
    for runtime in ("onnx", "openvino"):
        monkeypatch.setattr(f"autocut.stages.compile.{runtime}_comparison._MOST_BYTES_OF_SCAN", 1)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    calibration = [torch.randn(16, 8)]

    for dtype, mode in (("int8_static", "onnxruntime"), ("int8_dynamic", "onnxruntime"), ("int8_static", "openvino")):
        if lowering.infeasible_reason(f"{dtype}:1", mode) is None:
            with pytest.raises(InfeasibleRecipeError, match="needs a scan of 2 layers"):
                lowering.lower(model, f"{dtype}:1", mode, calibration, tmp_path)


@pytest.mark.parametrize(("most", "looks"), [(10**9, [("MinMax", 64), ("Percentile", 64)]), (39 * 36, [("MinMax", 39)])])
def test_a_calibration_looks_at_a_bounded_number_of_activations(
    most: int, looks: list[tuple[str, int]], monkeypatch, tmp_path: Path
):
    """256 images of 160 pixels in ResNet-50 take minutes. One that is cut short ends with the first range that is good enough."""
    seen: list[tuple[str, int]] = []
    find = onnx_static._FloatModel.ranges
    monkeypatch.setattr(calibration, "MOST_NUMBERS", most)
    monkeypatch.setattr(
        onnx_static._FloatModel, "ranges",
        lambda model, feeds, operators, method: (
            seen.extend((method, len(array)) for feed in feeds for array in feed.values()) or find(model, feeds, operators, method)
        ),
    )  # fmt: skip
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4), nn.Softmax(1)).eval()  # 36 activations an example
    lowering.lower(model, "int8_static", "onnxruntime", [INPUTS], tmp_path)

    assert seen == looks
