"""Attention heads and neurons: found in code of any style, removed alone, and repaired."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import DivergedError, InfeasibleRecipeError
from autocut.stages.prune import PruneData, pruners
from autocut.task.batches import call, take

WIDTH = 32


class Gated(nn.Module):
    """A gated feed-forward network in one layer for gate and value, as in Phi-3."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up, self.down = nn.Linear(WIDTH, 96), nn.Linear(48, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Silu of the gate, times the value."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class Grouped(nn.Module):
    """Eight query heads that share four keys and values, counted by attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.kv_heads = 8, 4
        self.q, self.k, self.v = nn.Linear(WIDTH, 64), nn.Linear(WIDTH, 32), nn.Linear(WIDTH, 32)
        self.out = nn.Linear(64, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, 32) -> the same shape."""
        n, length, _ = x.shape
        query = self.q(x).view(n, length, self.heads, 8).transpose(1, 2)
        key = self.k(x).view(n, length, self.kv_heads, 8).transpose(1, 2)
        value = self.v(x).view(n, length, self.kv_heads, 8).transpose(1, 2)
        key, value = (part.repeat_interleave(self.heads // self.kv_heads, 1) for part in (key, value))
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).reshape(n, length, -1))


class Fused(nn.Module):
    """Attention as people write it: one projection, a softmax, and the number of heads in a view."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head, self.n_embd = 4, WIDTH
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, 32) -> the same shape."""
        n, length, _ = x.shape
        parts = self.c_attn(x).split(self.n_embd, dim=2)
        query, key, value = (part.view(n, length, self.n_head, -1).transpose(1, 2) for part in parts)
        scores = (query @ key.transpose(-2, -1) / key.shape[-1] ** 0.5).tril().softmax(-1)
        return self.c_proj((scores @ value).transpose(1, 2).reshape(n, length, self.n_embd))


class Literal(nn.Module):
    """Attention whose number of heads is written into its code."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 96), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, 32) -> the same shape."""
        n, length, _ = x.shape
        query, key, value = self.qkv(x).view(n, length, 3, 4, -1).permute(2, 0, 3, 1, 4)
        return self.out(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, length, -1))


class Network(nn.Module):
    """Residual branches, each after a layer norm, between an embedding and a classifier of three classes."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(8, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, 8) -> (n, 3)."""
        x = self.embed(x)
        for branch in self.branches:
            x = x + branch(self.norm(x))
        return self.head(x.mean(1))


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` as a branch, called with its defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, 32) -> the same shape."""
        return self.attention(x, x, x)[0]


def data_for(inputs: Tensor) -> PruneData:
    """Prune data with random labels of three classes."""
    return PruneData(inputs[:2], [(inputs, torch.randint(0, 3, (len(inputs),)))], functional.cross_entropy)


def cut(model: nn.Module, ratio: float, inputs: Tensor, original: nn.Module | None = None) -> nn.Module:
    """Prune with the given examples."""
    return pruners["heads_and_neurons"](model, ratio, replace(data_for(inputs), original=original)).model


@pytest.fixture
def sequences() -> Tensor:
    """Sixteen sequences of six steps."""
    return torch.randn(16, 6, 8)


@pytest.mark.parametrize(
    ("branch", "reader", "width", "counts"),
    [
        (Fused, "c_proj", 8, {"n_head": 8, "n_embd": 1}),
        (Grouped, "out", 16, {"heads": 8, "kv_heads": 16}),
        (SelfAttention, "attention.out_proj", 8, {}),
        (Gated, "down", 1, {}),
    ],
)
def test_numbers_in_the_code_follow(branch, reader, width, counts, sequences):
    """What is left is whole heads, or pairs of a gate and its value; attributes count what is left."""
    pruned = cut(Network(branch(), branch()).eval(), 0.5, sequences)

    left = [part.get_submodule(reader).in_features for part in pruned.branches]
    assert 0 < sum(left) < 2 * branch().get_submodule(reader).in_features
    assert all(columns % width == 0 for columns in left)
    for part, columns in zip(pruned.branches, left, strict=True):
        assert {name: getattr(part, name) for name in counts} == {name: columns // each for name, each in counts.items()}


@settings(max_examples=15, deadline=None)
@given(ratio=st.floats(0.05, 0.97), branch=st.sampled_from([Fused, Grouped, SelfAttention, Gated]))
def test_at_any_ratio_the_model_is_smaller_runs_and_exports(ratio, branch):
    """Batches of other sizes and sequences of another length too."""
    torch.manual_seed(0)
    model, inputs = Network(branch(), Gated()).eval(), torch.randn(16, 6, 8)
    pruned = cut(model, ratio, inputs)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(pruned, (inputs,), dynamic_shapes=dynamic).module()

    assert sum(map(torch.numel, pruned.parameters())) < sum(map(torch.numel, model.parameters()))
    assert pruned(torch.randn(3, 9, 8)).shape == (3, 3)
    torch.testing.assert_close(exported(inputs[:5]), pruned(inputs[:5]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("branch", [Fused, SelfAttention, Gated])
def test_what_does_nothing_goes_first(branch, sequences):
    """Heads and neurons that are not read can go without a trace, refit or not."""
    model = Network(branch()).eval()
    layer = next(module for name, module in model.branches.named_modules() if name.split(".")[-1] in ("c_proj", "out_proj", "down"))
    half = layer.in_features // 2
    with torch.no_grad():
        layer.weight[:, half:] = 0
    pruned = cut(model, 0.5, sequences)

    torch.testing.assert_close(pruned(sequences), model(sequences), rtol=1e-4, atol=1e-5)


def test_heads_and_neurons_are_ranked_together(sequences):
    """Where most neurons do nothing, all heads stay."""
    model = Network(Fused(), Gated()).eval()
    with torch.no_grad():
        model.branches[1].down.weight[:, 8:] = 0
    pruned = cut(model, 0.3, sequences)

    assert (pruned.branches[0].n_head, pruned.branches[1].down.in_features) == (4, 20)


def test_a_layer_that_cannot_be_cut_does_not_keep_the_others(sequences):
    """Attention of a fixed number of heads stays whole; the neurons beside it go."""
    pruned = cut(Network(Literal(), Gated()).eval(), 0.7, sequences)

    assert pruned.branches[0].qkv.out_features == 96
    assert pruned.branches[1].down.in_features < 48


def test_a_model_of_which_nothing_can_be_cut_is_told_why(sequences):
    """The reason names the method, so that it is not tried at other ratios."""
    with pytest.raises(InfeasibleRecipeError, match=r"'heads_and_neurons' needs .* got none: branches\.0\.out: "):
        cut(Network(Literal()).eval(), 0.5, sequences)
    with pytest.raises(InfeasibleRecipeError, match=r"'heads_and_neurons' needs .* got none$"):
        cut(nn.Sequential(nn.Linear(8, 3), nn.Flatten()).eval(), 0.5, sequences)


def test_a_layer_that_runs_twice_is_left_whole(sequences):
    """Both of its calls would have to agree."""
    shared = Gated()
    pruned = cut(Network(shared, shared, Gated()).eval(), 0.5, sequences)

    assert [branch.down.in_features for branch in pruned.branches[:2]] == [48, 48]
    assert pruned.branches[2].down.in_features < 48


def test_ratios_count_from_the_first_model(sequences):
    """Cutting to 30% and then to 60% leaves about as many weights as cutting to 60%."""
    model = Network(Fused(), Gated(), Grouped(), Gated()).eval()
    at_once = cut(model, 0.6, sequences)
    twice = cut(cut(model, 0.3, sequences), 0.6, sequences, original=model)
    sizes = [sum(map(torch.numel, each.parameters())) for each in (at_once, twice, model)]

    assert abs(sizes[0] - sizes[1]) < 0.05 * sizes[2]


def test_an_encoder_of_torch_loses_heads(sequences):
    """Its layers take the replacement for their attention, with a mask of padding, in training too."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, dropout=0.0, batch_first=True)
            self.embed, self.encoder, self.head = nn.Linear(8, WIDTH), nn.TransformerEncoder(layer, 2), nn.Linear(WIDTH, 3)

        def forward(self, x):
            is_padding = x[..., 0] > 1
            encoded = self.encoder(self.embed(x), src_key_padding_mask=is_padding)
            return self.head(encoded.masked_fill(is_padding[..., None], 0).mean(1))

    pruned = cut(Encoder().eval(), 0.5, sequences)

    assert sum(layer.self_attn.num_heads for layer in pruned.encoder.layers) < 8
    with torch.no_grad():
        torch.testing.assert_close(pruned.train()(sequences), pruned.eval()(sequences), rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_is_refused(sequences):
    """Gradients of NaN rank nothing."""
    data = replace(data_for(sequences), loss=lambda outputs, targets: outputs.sum() * torch.nan)
    with pytest.raises(DivergedError):
        pruners["heads_and_neurons"](Network(Gated()).eval(), 0.5, data)


def transformers_model(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A small model of transformers with random weights, and sixteen examples."""
    transformers = pytest.importorskip("transformers")
    tokens = {"input_ids": torch.randint(2, 50, (16, 10))}
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "num_labels": 3}
    more = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "use_cache": False}
    if name == "bert":
        tokens["attention_mask"] = torch.arange(10).expand(16, 10).lt(torch.arange(1, 17)[:, None]).long()
        return transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=50, **sizes)), tokens
    if name == "vit":
        config = transformers.ViTConfig(image_size=16, patch_size=4, **sizes)
        return transformers.ViTForImageClassification(config), {"pixel_values": torch.randn(16, 3, 16, 16)}
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=50, n_embd=64, n_layer=2, n_head=4, n_positions=16, **more)
        return transformers.GPT2LMHeadModel(config), tokens
    if name == "phi3":
        config = transformers.Phi3Config(vocab_size=50, num_key_value_heads=2, **sizes, **more)
        return transformers.Phi3ForCausalLM(config), tokens
    config = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=2, tie_word_embeddings=True, **sizes, **more)
    return transformers.LlamaForCausalLM(config), tokens


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2", "llama", "phi3"])
def test_models_of_transformers_lose_heads_and_neurons(name):
    """They run afterwards as before, in batches of another size too, and export."""
    model, inputs = transformers_model(name)
    answers = call(model.eval(), inputs)
    data = PruneData(take(inputs, 2), [(inputs, answers.argmax(-1))], _loss)
    pruned = pruners["heads_and_neurons"](model, 0.9, data).model
    smaller = {
        layer: module.out_features
        for layer, module in pruned.named_modules()
        if isinstance(module, nn.Linear) and module.out_features < _rows(model.get_submodule(layer))
    }

    assert any("attn" in layer or "attention" in layer for layer in smaller)
    assert any("mlp" in layer or "intermediate" in layer for layer in smaller)
    assert call(pruned, take(inputs, 3)).shape == answers[:3].shape
    few = take(inputs, 4)
    exported = torch.export.export(pruned, (), few).module()
    torch.testing.assert_close(call(exported, few), call(pruned, few), rtol=1e-4, atol=1e-5)


def _rows(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.nf


def _loss(found: Tensor, wanted: Tensor) -> Tensor:
    return functional.cross_entropy(found.movedim(-1, 1), wanted)
