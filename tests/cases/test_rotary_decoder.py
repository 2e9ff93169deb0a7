"""A decoder as people write it: rotary positions, tied embeddings, grouped queries, and a dataclass as its answer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.stages import lowering
from autocut.stages.prune import PruneData, pruners
from autocut.task.batches import call

WIDTH, WORDS, LENGTH = 32, 2000, 12


@dataclass
class Answer:
    """Logits (n, t, words) and the states that they come from."""

    logits: Tensor
    hidden: Tensor | None = None


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the two halves of the last dimension."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Decoder(nn.Module):
    """One layer: two heads of queries share one head of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.out.weight = self.embedding.weight
        self.query, self.key, self.value = (nn.Linear(WIDTH, width, bias=False) for width in (WIDTH, WIDTH // 2, WIDTH // 2))
        self.gate, self.up, self.down = nn.Linear(WIDTH, 64), nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        angles = torch.outer(torch.arange(LENGTH), torch.arange(1, 9) / 8)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, input_ids: Tensor) -> Answer:
        """Token ids (n, 12)."""
        x = self.embedding(input_ids)
        query, key, value = (layer(x).unflatten(-1, (-1, 16)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        key, value = (rotate(key, self.cosine, self.sine).repeat_interleave(2, 1), value.repeat_interleave(2, 1))
        seen = functional.scaled_dot_product_attention(rotate(query, self.cosine, self.sine), key, value, is_causal=True)
        x = x + seen.transpose(1, 2).flatten(2)
        x = x + self.down(functional.silu(self.gate(x)) * self.up(x))
        return Answer(self.out(x), x)


@pytest.fixture(name="decoder")
def _decoder() -> Decoder:
    """The same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Decoder().eval()


@pytest.fixture(name="batch")
def _batch() -> dict[str, Tensor]:
    """Four sequences."""
    return {"input_ids": torch.arange(4 * LENGTH).reshape(4, LENGTH) % WORDS}


@pytest.mark.parametrize("name", ["structured", "structured_taylor"])
def test_the_mlp_is_cut_where_the_attention_cannot_be_followed(name, decoder, batch):
    """One operation that pruning need not touch does not forbid it for the whole model, and tied weights stay tied."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    pruned = pruners[name](decoder, 0.5, PruneData(batch, [(batch, batch["input_ids"])], loss)).model

    assert (pruned.gate.out_features, pruned.up.out_features, pruned.down.in_features) == (32, 32, 32)
    assert pruned.query.out_features == decoder.query.out_features
    assert pruned.out.weight is pruned.embedding.weight
    assert call(pruned, batch).shape == (4, LENGTH, WORDS)


@pytest.mark.parametrize("mode", ["eager", "onnxruntime"])
def test_logits_are_exported_and_nothing_else(mode, decoder, batch, tmp_path):
    """The dataclass does not reach the artifact, and the tied matrix is stored once."""
    lowering.lower(decoder, "fp32", mode, [batch], tmp_path)
    answer = lowering.load(tmp_path, mode)(batch)

    torch.testing.assert_close(answer, call(decoder, batch), rtol=1e-4, atol=1e-5)
    weights = 4 * sum(parameter.numel() for parameter in decoder.parameters())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < weights + 100_000  # another copy would be 256,000
