"""Half precision: what computes in 16 bits, what stays in float32, and what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages import lowering
from autocut.stages.graph import export_model, load_graph
from autocut.stages.quantize import quantizers

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Masked(nn.Module):
    """Averages the words that a mask of integers leaves: tokens (n, 6) and mask (n, 6) -> two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.out = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """`mask.float()` is float32, whatever the weights are."""
        states = self.hidden(self.words(tokens)) * mask.float()[:, :, None]
        return self.out(states.sum(1) / mask.float().sum(1, keepdim=True))


class Shared(nn.Module):
    """A matrix that looks words up and gives their scores, and one that is computed: tokens (n, 6) -> (n, 40)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(40, 16), nn.Linear(16, 40, bias=False)
        self.out.weight = self.words.weight
        self.mix = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the mean."""
        return self.out(self.mix(self.words(tokens)).mean(1))


class Large(nn.Module):
    """Its first product leaves the range of float16: (n, 8) -> (n, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """A large sum, divided again."""
        return self.second(self.first(x * 1e6) / 1e6)


@pytest.mark.parametrize("name", HALVES)
def test_a_mask_of_float32_inside_is_taken(name: str, tmp_path: Path):
    """A cast of the whole module fails here: "mat1 and mat2 must have the same dtype"."""
    model, mask = Masked().eval(), (torch.arange(6) < torch.arange(1, 7)[:, None]).long()
    inputs = {"tokens": torch.randint(0, 20, (6, 6)), "mask": mask}

    lowering.lower_graph(model, name, [inputs], tmp_path)
    program = load_graph(tmp_path)
    answer = program.module()(inputs["tokens"], mask)

    assert answer.dtype == torch.float32
    assert torch.cosine_similarity(answer, model(**inputs)).min() > 0.999
    assert {tensor.dtype for tensor in program.state_dict.values() if tensor.dim() == 2} == {HALVES[name]}


@pytest.mark.parametrize("name", HALVES)
def test_a_tied_matrix_is_stored_once_and_a_computed_one_is_stored_computed(name: str):
    """Otherwise the file would be larger than the one of float32, or compute its weights at each call."""
    model, tokens = Shared().eval(), torch.randint(0, 40, (4, 6))

    program = export_model(quantizers[name](model, [tokens]), tokens)

    matrices = {tensor.data_ptr(): tensor for tensor in program.state_dict.values() if tensor.dim() == 2}
    assert sorted((tuple(tensor.shape), tensor.dtype) for tensor in matrices.values()) == [
        ((16, 16), HALVES[name]), ((40, 16), HALVES[name])
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "kept"), [("bf16", torch.bfloat16), ("fp16", torch.float32)])
def test_numbers_beyond_the_range_stay_in_float32(name: str, kept: torch.dtype):
    """float16 ends at 65504, bfloat16 at 3e38."""
    model, inputs = Large().eval(), torch.randn(16, 8)

    quantized = quantizers[name](model, [inputs])
    products = [node for node in quantized.graph.nodes if "linear" in str(node.target)]

    assert [quantized.get_parameter(node.args[1].target).dtype for node in products] == [kept, HALVES[name]]
    assert torch.cosine_similarity(quantized(inputs), model(inputs)).min() > 0.99


@pytest.mark.parametrize("name", HALVES)
def test_a_model_without_a_product_is_infeasible(name: str):
    """It would compute as before, under another name."""
    with pytest.raises(InfeasibleRecipeError, match=f"{name} must change at least one product"):
        quantizers[name](nn.Sequential(nn.ReLU(), nn.LayerNorm(8)), [torch.randn(4, 8)])
