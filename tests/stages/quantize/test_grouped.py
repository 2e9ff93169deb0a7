"""Four-bit numbers that make up for one another's rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autocut.stages.graph import export_model
from autocut.stages.quantize import quantizers
from autocut.stages.quantize.grouped import LEVELS, round_in_groups
from autocut.stages.quantize.moments import moments_by_name, moments_of_graph

ROWS, COLUMNS, GROUP = 24, 80, 32


def grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Sixteen numbers, evenly spread over the range."""
    return ((high - low) / LEVELS).clamp(min=1e-30), low


def nearest(weight: Tensor) -> Tensor:
    """Each weight as the nearest of sixteen numbers of its own group: (rows, columns)."""
    parts = []
    for part in weight.split(GROUP, dim=1):
        low, high = part.amin(1, keepdim=True).clamp(max=0), part.amax(1, keepdim=True).clamp(min=0)
        scale = (high - low) / LEVELS
        parts.append(((part - low) / scale).round() * scale + low)
    return torch.cat(parts, dim=1)


def test_outputs_change_less_than_by_rounding_to_nearest():
    """Inputs that rise and fall together leave room: the weight of one takes what that of another has lost."""
    inputs = torch.randn(400, 8) @ torch.randn(8, COLUMNS) + 0.3 * torch.randn(400, COLUMNS)
    weight = torch.randn(ROWS, COLUMNS)

    rounded = round_in_groups(weight, inputs.T @ inputs, grid, GROUP)

    assert rounded.numbers.shape == (ROWS, 3, GROUP)
    assert torch.equal(rounded.numbers, rounded.numbers.round().clamp(0, LEVELS))
    errors = [float((inputs @ (made - weight).T).norm()) for made in (rounded.weights(COLUMNS), nearest(weight))]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("moments", [torch.zeros(COLUMNS, COLUMNS), torch.ones(COLUMNS, COLUMNS)])
def test_inputs_that_say_little_do_no_harm(moments: Tensor):
    """Inputs that are all zero, or all alike, give moments that have no inverse."""
    weight = torch.randn(ROWS, COLUMNS)

    made = round_in_groups(weight, moments, grid, GROUP).weights(COLUMNS)

    assert (made - weight).norm() < 0.3 * weight.norm()


def test_moments_are_those_of_what_a_layer_reads(tiny_mlp: nn.Module, mlp_inputs: Tensor):
    """The graph is left as it was."""
    module = export_model(tiny_mlp, mlp_inputs).module(check_guards=False)
    before = [(node.op, node.name) for node in module.graph.nodes]
    nodes = [node for node in module.graph.nodes if node.target is torch.ops.aten.linear.default]

    moments = moments_of_graph(module, nodes, [mlp_inputs[:10], mlp_inputs[10:]])

    hidden = tiny_mlp[:2](mlp_inputs).detach()
    torch.testing.assert_close(moments[nodes[0].args[0]], mlp_inputs.T @ mlp_inputs)
    torch.testing.assert_close(moments[nodes[1].args[0]], hidden.T @ hidden)
    assert [(node.op, node.name) for node in module.graph.nodes] == before


def test_a_runtime_is_not_asked_for_more_than_it_takes(monkeypatch: pytest.MonkeyPatch):
    """A call of a large model takes a good part of a second."""
    monkeypatch.setattr("autocut.stages.quantize.moments._POSITIONS", 20)
    asked = []

    def calls():
        for index in range(10):
            asked.append(index)
            yield {"read": torch.ones(2, 4, 3)}

    moments = moments_by_name(calls())

    assert len(asked) == 3
    torch.testing.assert_close(moments["read"], torch.full((3, 3), 24.0))


class Tied(nn.Module):
    """Token ids (n, 4) below 64 -> scores (n, 4, 64), by a last layer that shares the weight of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner, self.out = nn.Embedding(64, 32), nn.Linear(32, 32), nn.Linear(32, 64, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of each position."""
        return self.out(torch.relu(self.inner(self.embedding(tokens))))


def test_a_weight_that_an_embedding_reads_too_has_no_second_copy():
    """The float table stays in the file: an int4 copy beside it would only cost bytes and accuracy."""
    tokens = torch.randint(0, 64, (8, 4))
    state = export_model(quantizers["int4_weight_only"](Tied().eval(), [tokens]), tokens).state_dict.values()

    assert sorted((str(tensor.dtype), tuple(tensor.shape)) for tensor in state if tensor.numel() > 32) == [
        ("torch.bfloat16", (1, 32, 2)),
        ("torch.float32", (64, 32)),
        ("torch.uint8", (32, 16)),
    ]
