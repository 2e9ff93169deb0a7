"""Weights alone in integers: what stands in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages import lowering
from autocut.stages.compile import onnx_weight_only, openvino_weight_only
from autocut.stages.graph import load_graph

BITS = {"int8_weight_only": 8, "int4_weight_only": 4}
WIDTH, HIDDEN = 96, 160


class Scorer(nn.Module):
    """Rows (n, 5, 96) -> (n, 10): layers over three dimensions and over two, with a bias and without."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of the mean."""
        return self.out(self.narrow(torch.relu(self.wide(rows.flip(1).mT.mT))).transpose(0, 1).mean(0))


@pytest.fixture(name="model")
def _model() -> nn.Module:
    return Scorer().eval()


ROWS = torch.randn(8, 5, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dtype", "bits"), BITS.items())
@pytest.mark.parametrize("mode", ["eager", "onnxruntime", "openvino"])
def test_the_file_shrinks_with_the_bits(mode: str, dtype: str, bits: int, model: nn.Module, tmp_path: Path):
    """Four bits in a byte each would be int4 in name only."""
    if reason := lowering.infeasible_reason(dtype, mode):
        pytest.skip(reason)
    sizes = {}
    for name in ("fp32", dtype):
        (folder := tmp_path / name).mkdir()
        lowering.lower(model, name, mode, [ROWS], folder)
        sizes[name] = sum(path.stat().st_size for path in folder.iterdir())
    weights = WIDTH * HIDDEN * 2

    assert sizes["fp32"] - sizes[dtype] > weights * (4 - bits / 8 - 0.3) - 20_000  # scales, and 20 kB for a longer graph
    answer = lowering.load(tmp_path / dtype, mode)(ROWS)
    assert torch.cosine_similarity(answer, model(ROWS)).min() > 0.97


@pytest.mark.parametrize(("dtype", "bits"), BITS.items())
def test_onnx_runtime_stores_packed_integers(dtype: str, bits: int, model: nn.Module, tmp_path: Path):
    """All three layers, whether they export as a product or, with a bias, as a Gemm."""
    lowering.lower(model, dtype, "onnxruntime", [ROWS], tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    packed = [stored[node.input[1]] for node in graph.node if node.op_type == "MatMulNBits"]

    assert sorted(array.size for array in packed) == sorted(
        count * bits // 8 for count in (WIDTH * HIDDEN, HIDDEN * WIDTH, WIDTH * 10)
    )
    assert {array.dtype for array in packed} == {np.dtype("uint8")}
    assert not [name for name, array in stored.items() if array.dtype == np.float32 and array.size >= WIDTH * 10]


def test_onnx_runtime_stores_a_fifth_in_int8_where_the_outputs_deviate(model: nn.Module, tmp_path: Path, monkeypatch):
    """The last layer alone is small enough. A model that bears int4 has none."""
    found = []
    for tolerated in (1.0, 0.0):
        monkeypatch.setattr("autocut.stages.compile.onnx_weight_only.TOLERATED", tolerated)
        (folder := tmp_path / str(tolerated)).mkdir()
        lowering.lower(model, "int4_weight_only", "onnxruntime", [ROWS], folder)
        nodes = [node for node in onnx.load(folder / "model.onnx").graph.node if node.op_type == "MatMulNBits"]
        bits = [onnx.helper.get_node_attr_value(node, "bits") for node in nodes]
        sizes = [onnx.helper.get_node_attr_value(node, "N") for node in nodes]
        found.append(sorted(zip(sizes, bits, strict=True)))

    assert found == [[(10, 4), (WIDTH, 4), (HIDDEN, 4)], [(10, 8), (WIDTH, 4), (HIDDEN, 4)]]


def test_the_most_sensitive_layers_are_those_that_deviate_the_most_for_their_size():
    """A layer that takes more than what is left of a fifth is passed over."""
    alone = {"huge": 9.0, "large": 3.0, "small": 1.0, "quiet": 0.1, "tiny": 0.1}
    sizes = {"huge": 800, "large": 150, "small": 10, "quiet": 60, "tiny": 1}

    assert onnx_weight_only._most_sensitive(alone, sizes) == ["small", "large", "tiny"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_openvino_gets_the_largest_weight_of_a_group_as_it_is(sign: float):
    """It has one more number on one side: the scale is negative where the largest weight is positive."""
    low, high = torch.tensor([[-4.0]]), torch.tensor([[2.0]])
    scale, zero = openvino_weight_only._grid(*((low, high) if sign > 0 else (-high, -low)))

    assert scale.item() == sign * 0.5
    assert zero.item() == sign * -4.0


def test_openvino_stores_int4(model: nn.Module, tmp_path: Path):
    """The last layer stays int8, as nncf has it."""
    if reason := lowering.infeasible_reason("int4_weight_only", "openvino"):
        pytest.skip(reason)
    lowering.lower(model, "int4_weight_only", "openvino", [ROWS], tmp_path)
    nodes = openvino.Core().read_model(tmp_path / "model.xml").get_ops()
    packed = [node for node in nodes if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i4"]

    assert sorted(int(np.prod(node.get_output_shape(0))) for node in packed) == [WIDTH * HIDDEN] * 2


def test_openvino_says_so_where_nothing_is_int4(tmp_path: Path):
    """A network of convolutions alone has no product."""
    if reason := lowering.infeasible_reason("int4_weight_only", "openvino"):
        pytest.skip(reason)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()

    with pytest.raises(InfeasibleRecipeError, match="must change at least one layer"):
        lowering.lower(network, "int4_weight_only", "openvino", [torch.randn(4, 1, 8, 8)], tmp_path)


def test_torch_stores_two_numbers_in_a_byte(model: nn.Module, tmp_path: Path):
    """No float copy is left beside them."""
    lowering.lower_graph(model, "int4_weight_only", [ROWS], tmp_path)
    state = load_graph(tmp_path).state_dict.values()

    padded = ((HIDDEN, WIDTH), (WIDTH, HIDDEN), (16, WIDTH))
    assert sorted(tuple(tensor.shape) for tensor in state if tensor.dtype == torch.uint8) == sorted(
        (rows, columns // 2) for rows, columns in padded
    )
    assert not [tensor for tensor in state if tensor.dtype == torch.float32 and tensor.numel() > 2 * WIDTH * HIDDEN // 32]
