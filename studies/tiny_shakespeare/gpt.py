"""A decoder like GPT-2's, small enough to be trained on two cores within minutes.

References:
    Radford et al. 2019, Language Models are Unsupervised Multitask Learners
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_EXPANSION = 4


class Attention(nn.Module):
    """Causal attention; one product makes queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix each letter with those before it; shape (n, t, width), as it came in."""
        query, key, value = (self._heads(part) for part in self.inputs(x).chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """Shape (n, heads, t, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention, then two linear layers, each normalized before and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, _EXPANSION * width), nn.GELU(), nn.Linear(_EXPANSION * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, t, width), as it came in."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed(self.feed_norm(x))


class GPT(nn.Module):
    """Learned positions, `layers` blocks, and an output layer of its own."""

    def __init__(self, letters: int, window: int, width: int = 128, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(letters, width)
        self.position = nn.Embedding(window, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, letters, bias=False)

    def forward(self, letters: Tensor) -> Tensor:
        """Logits (n, t, letters) of what follows each of the letters (n, t)."""
        positions = torch.arange(letters.shape[1], device=letters.device)
        return self.out(self.norm(self.blocks(self.embedding(letters) + self.position(positions))))
