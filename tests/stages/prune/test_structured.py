"""Whole channels: what gets smaller, what must not, and what is found out."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch_pruning
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import DivergedError, InfeasibleRecipeError
from autocut.stages.prune import PruneData, pruners
from autocut.stages.prune.channels import kept_width

methods = pytest.mark.parametrize("name", ["structured", "structured_taylor"])


def data_for(inputs: Tensor) -> PruneData:
    """Prune data with random labels of three classes."""
    return PruneData(inputs, [(inputs, torch.randint(0, 3, (len(inputs),)))], functional.cross_entropy)


@methods
def test_structured_gives_smaller_tensors_and_fewer_macs(name, tiny_cnn, cnn_inputs):
    """Half of the channels are half of the rows, and about a quarter of the work."""
    pruned = pruners[name](tiny_cnn, 0.5, data_for(cnn_inputs)).model
    macs, _ = torch_pruning.utils.count_ops_and_params(tiny_cnn, cnn_inputs[:1])
    macs_left, _ = torch_pruning.utils.count_ops_and_params(pruned, cnn_inputs[:1])

    assert [tuple(pruned[index].weight.shape) for index in (0, 3, 8)] == [(8, 1, 3, 3), (16, 8, 3, 3), (3, 16)]
    assert macs_left < 0.4 * macs


@methods
@pytest.mark.parametrize(("first", "then"), [(0.3, 0.5), (0.5, 0.7), (0.3, 0.85)])
def test_pruned_on_is_as_wide_as_pruned_at_once(name, first, then, tiny_cnn, cnn_inputs):
    """A ratio counts from the model before its first cut: a child of a less pruned model costs what is known of its ratio."""
    data = data_for(cnn_inputs)
    at_once = pruners[name](tiny_cnn, then, data).model
    pruned_on = pruners[name](pruners[name](tiny_cnn, first, data).model, then, replace(data, original=tiny_cnn)).model

    assert [parameter.shape for parameter in pruned_on.parameters()] == [parameter.shape for parameter in at_once.parameters()]


def test_removed_channels_were_the_weakest(tiny_mlp, mlp_inputs):
    """Dead neurons go first, and then the output stays the same."""
    with torch.no_grad():
        tiny_mlp[0].weight[8:16] = 0
        tiny_mlp[0].bias[8:16] = 0
        tiny_mlp[2].weight[:, 8:16] = 0
        tiny_mlp[2].weight[4:8] = 0
        tiny_mlp[2].bias[4:8] = 0
        tiny_mlp[4].weight[:, 4:8] = 0
    pruned = pruners["structured"](tiny_mlp, 0.25, data_for(mlp_inputs)).model

    assert [layer.out_features for layer in pruned if isinstance(layer, nn.Linear)] == [24, 12, 3]
    torch.testing.assert_close(pruned(mlp_inputs), tiny_mlp(mlp_inputs))


def test_padded_shortcuts_stay_aligned(tiny_resnet, resnet_inputs):
    """Option A pads channels in front: channel i becomes i + 8. Dead channels of the stream go without a trace."""
    dead = torch.arange(4, 12)
    with torch.no_grad():
        for parameter in tiny_resnet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for layer in (tiny_resnet.stem[0], tiny_resnet.blocks[0].conv2):
            layer.weight[dead] = 0
        for norm in (tiny_resnet.stem[1], tiny_resnet.blocks[0].bn2):
            norm.weight[dead] = 0
            norm.bias[dead] = 0
        for layer in (tiny_resnet.blocks[0].conv1, tiny_resnet.blocks[1].conv1):
            layer.weight[:, dead] = 0
        tiny_resnet.blocks[1].conv2.weight[dead + 8] = 0
        tiny_resnet.blocks[1].bn2.weight[dead + 8] = 0
        tiny_resnet.blocks[1].bn2.bias[dead + 8] = 0
        tiny_resnet.linear.weight[:, dead + 8] = 0
    silenced_inner = copy.deepcopy(tiny_resnet)
    for block in silenced_inner.blocks:
        weakest = _weakest(block, block.conv1.out_channels // 2)
        with torch.no_grad():
            block.conv2.weight[:, weakest] = 0
    without_batches = replace(data_for(resnet_inputs), batches=[])  # which would repair batch normalization
    pruned = pruners["structured"](tiny_resnet, 0.5, without_batches).model

    assert pruned.stem[0].out_channels == 8
    assert pruned.linear.in_features == 24
    torch.testing.assert_close(pruned(resnet_inputs), silenced_inner(resnet_inputs), rtol=1e-4, atol=1e-4)


def _weakest(block: nn.Module, count: int) -> Tensor:
    """Inner channels of least mean squared norm over the three layers that share them: an oracle of the group magnitude."""
    norms = [
        block.conv1.weight.flatten(1).square().sum(1),
        block.bn1.weight.square(),
        block.conv2.weight.transpose(0, 1).flatten(1).square().sum(1),
    ]
    return torch.stack(norms).mean(0).argsort()[:count]


class HandmadeAttention(nn.Module):
    """Attention with the number of heads written into a view: its projection cannot lose rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, 8) -> (n, 3)."""
        x = self.embed(x)
        batch, length, _ = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, 4, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, length, -1)
        return self.head((x + self.out(attended)).mean(1))


@methods
def test_a_group_that_would_break_is_left_whole(name):
    """The stream around handmade attention narrows; the heads inside keep their width."""
    pruned = pruners[name](HandmadeAttention().eval(), 0.5, data_for(torch.randn(16, 6, 8))).model

    assert (pruned.qkv.in_features, pruned.qkv.out_features) == (16, 96)


class Rotary(nn.Module):
    """Attention with rotary positions made of slices, as in transformers' Llama, and a gated feed-forward network in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 32), nn.Linear(32, 3)
        self.query, self.key, self.out = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.gate_up, self.down = nn.Linear(32, 96), nn.Linear(48, 32)
        self.up, self.last = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, 8) -> (n, 3)."""
        x = self.embed(x)
        query, key = (self._rotated(layer(x).unflatten(-1, (4, 8)).transpose(1, 2)) for layer in (self.query, self.key))
        value = x.unflatten(-1, (4, 8)).transpose(1, 2)
        x = x + self.out(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        x = x + self.down(functional.silu(gate) * up)
        return self.head((x + self.last(functional.relu(self.up(x)))).mean(1))

    def _rotated(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] / torch.arange(1, 9)
        return x * angles.cos() + torch.cat((-x[..., 4:], x[..., :4]), dim=-1) * angles.sin()


@methods
def test_what_has_no_end_is_left_whole(name):
    """torch-pruning goes round such slices for ever, and takes the halves of a chunk for all of it; other neurons go."""
    pruned = pruners[name](Rotary().eval(), 0.5, data_for(torch.randn(16, 6, 8))).model

    assert pruned.query.out_features == 32
    assert pruned.down.in_features >= 24
    assert pruned.last.in_features == 32


class Conv1D(nn.Module):
    """A linear layer with a transposed matrix, as transformers' GPT-2 has it."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        """(n, nx) -> (n, nf)."""
        return torch.addmm(self.bias, x, self.weight)


@methods
def test_transposed_layers_are_cut(name):
    """They become layers of torch that compute the same."""
    model, inputs = nn.Sequential(Conv1D(32, 8), nn.ReLU(), Conv1D(3, 32)).eval(), torch.randn(16, 8)
    with torch.no_grad():
        model[0].weight[:, :16], model[0].bias[:16], model[2].weight[:16] = 0, 0, 0
    pruned = pruners[name](model, 0.5, data_for(inputs)).model

    assert (pruned[0].out_features, pruned[2].in_features) == (16, 16)
    torch.testing.assert_close(pruned(inputs), model(inputs), rtol=1e-4, atol=1e-4)


class TiedLanguageModel(nn.Module):
    """Logits by the embedding's own matrix, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.up = nn.Linear(32, 64)
        self.down = nn.Linear(64, 32)
        self.head = nn.Linear(32, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) -> (n, length, 40)."""
        x = self.embed(tokens)
        return self.head(x + self.down(functional.relu(self.up(x))))


@methods
def test_tied_parameters_stay_tied(name):
    """Two copies would be twice the file, and would train apart."""
    model, tokens = TiedLanguageModel().eval(), torch.randint(0, 40, (16, 6))
    data = PruneData(tokens, [(tokens, tokens)], lambda outputs, targets: functional.cross_entropy(outputs.mT, targets))
    pruned = pruners[name](model, 0.5, data).model

    assert pruned.head.weight.shape == (40, 16)
    assert pruned.head.weight is pruned.embed.weight
    assert model.head.weight is model.embed.weight


def test_tied_parameters_that_lost_different_channels_are_left_apart():
    """One tensor for both would be another function than the one that was checked."""
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.weight = first.weight
    model = nn.Sequential(nn.Linear(8, 16), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(16, 3)).eval()
    pruned = pruners["structured"](model, 0.5, data_for(torch.randn(16, 8))).model

    assert pruned[1].weight.shape == pruned[3].weight.shape
    assert not torch.equal(pruned[1].weight, pruned[3].weight)


def test_attention_heads_lose_equal_shares(tiny_transformer, transformer_inputs):
    """torch.nn.MultiheadAttention keeps its heads, each narrower by the same dimensions."""
    pruned = pruners["structured"](tiny_transformer, 0.5, data_for(transformer_inputs)).model

    assert (pruned.encoder.self_attn.embed_dim, pruned.encoder.self_attn.num_heads, pruned.encoder.self_attn.head_dim) == (16, 4, 4)


@methods
def test_a_model_without_inner_width_is_infeasible(name, mlp_inputs):
    """A linear model has nothing but its inputs and its outputs."""
    with pytest.raises(InfeasibleRecipeError, match="output"):
        pruners[name](nn.Linear(8, 16).eval(), 0.5, data_for(mlp_inputs))


def test_frozen_parameters_stay_frozen(tiny_mlp, mlp_inputs):
    """Tracing needs gradients everywhere; the user's choice comes back."""
    tiny_mlp[0].weight.requires_grad_(False)
    pruned = pruners["structured"](tiny_mlp, 0.5, data_for(mlp_inputs)).model

    assert [name for name, parameter in pruned.named_parameters() if not parameter.requires_grad] == ["0.weight"]


def test_one_pruner_does_not_leak_into_the_next(tiny_transformer, transformer_inputs, tiny_mlp, mlp_inputs):
    """torch-pruning shares default dictionaries between pruners: none are used."""
    alone = pruners["structured"](tiny_mlp, 0.5, data_for(mlp_inputs)).model
    pruners["structured"](tiny_transformer, 0.5, data_for(transformer_inputs))
    after = pruners["structured"](tiny_mlp, 0.5, data_for(mlp_inputs)).model

    torch.testing.assert_close(after.state_dict(), alone.state_dict(), rtol=0, atol=0)


def test_taylor_refuses_a_loss_that_is_not_finite(tiny_mlp, mlp_inputs):
    """Gradients of NaN rank nothing."""
    data = PruneData(mlp_inputs, [(mlp_inputs, torch.zeros(16))], lambda outputs, targets: outputs.sum() * torch.nan)
    with pytest.raises(DivergedError):
        pruners["structured_taylor"](tiny_mlp, 0.5, data)


@given(st.integers(1, 4096), st.floats(0, 0.99))
def test_kept_width_is_the_nearest_friendly_one(width, ratio):
    """One channel at least, all at most, and never a whole multiple (of 8 at most) away from what was asked."""
    kept = kept_width(width, ratio)

    assert 1 <= kept <= width
    assert abs(kept - width * (1 - ratio)) < 8
    assert kept == width or width < 64 or kept % 8 == 0
