"""The contract that every registered dtype keeps, and what is special about each."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from autocut.errors import CompilerError, InfeasibleRecipeError
from autocut.stages.graph import export_model
from autocut.stages.quantize import quantizers
from autocut.task.batches import call


@pytest.mark.parametrize("name", quantizers.names())
def test_quantizer_leaves_its_input_alone(name: str, tiny_mlp: nn.Module, mlp_inputs: Tensor):
    """A stage returns a new model: the next trial starts from the same weights."""
    before = copy.deepcopy(tiny_mlp.state_dict())
    tiny_mlp.train()

    quantized = quantizers[name](tiny_mlp, [mlp_inputs])

    assert quantized is not tiny_mlp
    assert tiny_mlp.training
    torch.testing.assert_close(tiny_mlp.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", quantizers.names())
@pytest.mark.parametrize("network", ["mlp", "cnn", "resnet", "transformer"])
def test_quantized_model_answers_like_the_float_model(name: str, network: str, request: pytest.FixtureRequest):
    """Fewer bits cost a little accuracy, not the model."""
    model = request.getfixturevalue(f"tiny_{network}")
    inputs = request.getfixturevalue(f"{network}_inputs")

    with torch.no_grad():
        quantized = call(quantizers[name](model, [inputs]), inputs)
        similarity = torch.cosine_similarity(quantized, model(inputs))

    assert quantized.dtype == torch.float32
    assert similarity.min() > 0.97


@pytest.mark.parametrize("name", quantizers.names())
def test_quantized_model_exports_as_plain_tensors(name: str, tiny_mlp: nn.Module, mlp_inputs: Tensor):
    """A tensor subclass would be pickled in the archive."""
    program = export_model(quantizers[name](tiny_mlp, [mlp_inputs]), mlp_inputs)

    assert {type(tensor) for tensor in program.state_dict.values()} <= {Tensor, nn.Parameter}


@pytest.mark.parametrize("name", ["int8_dynamic", "int8_static", "int8_weight_only"])
def test_int8_weights_are_the_only_copy(name: str, tiny_mlp: nn.Module, mlp_inputs: Tensor):
    """A float copy beside the int8 weights would make the file larger, not smaller."""
    state = export_model(quantizers[name](tiny_mlp, [mlp_inputs]), mlp_inputs).state_dict
    weights = [tensor for tensor in state.values() if tuple(tensor.shape) in {(32, 8), (16, 32), (3, 16)}]

    assert [tensor.dtype for tensor in weights] == [torch.int8] * 3


@pytest.mark.parametrize("name", ["int8_dynamic", "int8_static", "int8_weight_only", "int4_weight_only"])
def test_dtype_that_changes_no_layer_is_infeasible(name: str):
    """Torchao returns such a model unchanged without a word; a trial of it would be a copy under another name."""
    with pytest.raises(InfeasibleRecipeError, match=f"{name} must change at least one"):
        quantizers[name](nn.Sequential(nn.ReLU(), nn.Flatten()), [torch.randn(4, 8)])


@pytest.mark.parametrize("name", ["int8_dynamic", "int8_weight_only", "int4_weight_only"])
def test_convolutions_alone_are_infeasible_for_linear_only_dtypes(name: str):
    """The hint names the dtype that does quantize convolutions."""
    with pytest.raises(InfeasibleRecipeError) as raised:
        quantizers[name](nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), [torch.randn(4, 1, 8, 8)])

    assert "int8_static" in str(raised.value.hint)


@pytest.mark.parametrize("name", ["int8_dynamic", "int8_weight_only"])
def test_attention_alone_is_infeasible_for_linear_only_dtypes(name: str):
    """Torchao skips the one nn.Linear inside nn.MultiheadAttention: the model came back in float32 under an int8 name."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv1d(8, 32, 1)
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x).transpose(1, 2)
            return self.attention(x, x, x)[0].mean(1)

    with pytest.raises(InfeasibleRecipeError, match="none that it can"):
        quantizers[name](Attending().eval(), [torch.randn(4, 8, 6)])


def test_model_that_cannot_be_exported_ends_one_trial():
    """The library's own error type never leaves the stage."""

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CompilerError, match=r"torch\.export failed: "):
        quantizers["int8_static"](Branching(), [torch.randn(4, 8)])
