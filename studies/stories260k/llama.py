"""The Llama-2 architecture, and its weights from a file of llama2.c."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import TaskError

_FIELDS = 7
_BYTES = 4
_BASE = 10_000.0
_EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """The header of a file of llama2.c: seven integers."""

    width: int
    hidden: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    length: int

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


class Norm(nn.Module):
    """Divides by the root of the mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + _EPSILON)


class Attention(nn.Module):
    """Causal attention with rotary positions; several query heads share a key head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_width, self.shared = shape.head_width, shape.heads // shape.key_heads
        self.query = nn.Linear(shape.width, shape.heads * shape.head_width, bias=False)
        self.key = nn.Linear(shape.width, shape.key_heads * shape.head_width, bias=False)
        self.value = nn.Linear(shape.width, shape.key_heads * shape.head_width, bias=False)
        self.out = nn.Linear(shape.heads * shape.head_width, shape.width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Mix each token with those before it."""
        query = rotate(self._heads(self.query(x)), cosine, sine)
        key = rotate(self._heads(self.key(x)), cosine, sine).repeat_interleave(self.shared, dim=1)
        value = self._heads(self.value(x)).repeat_interleave(self.shared, dim=1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """Shape (n, heads, t, head_width)."""
        return x.view(x.shape[0], x.shape[1], -1, self.head_width).transpose(1, 2)


class FeedForward(nn.Module):
    """A gated layer: one product opens the gate of the other."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token by itself."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention, then the gated layer, each added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm, self.attention = Norm(shape.width), Attention(shape)
        self.feed_norm, self.feed = Norm(shape.width), FeedForward(shape)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Shape (n, t, width), as it came in."""
        x = x + self.attention(self.attention_norm(x), cosine, sine)
        return x + self.feed(self.feed_norm(x))


class Llama(nn.Module):
    """A decoder whose output layer shares the weights of its embedding."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width)
        self.out = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.out.weight = self.embedding.weight
        frequencies = _BASE ** (-torch.arange(0, shape.head_width, 2) / shape.head_width)
        angles = torch.outer(torch.arange(shape.length), frequencies)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (n, t, vocabulary) of what follows each of the tokens (n, t)."""
        x = self.embedding(tokens)
        cosine, sine = self.cosine[: tokens.shape[1]], self.sine[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, cosine, sine)
        return self.out(self.norm(x))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair of neighbours in the last dimension of `x` (n, heads, t, head_width) by the angle of its position."""
    first, second = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return turned.flatten(-2)


def read_llama(path: Path) -> Llama:
    """Read a model from a file of llama2.c (version 0): a header, then all weights as float32.

    Raises:
        TaskError: the file has another size than its header says.
    """
    content = path.read_bytes()
    header = np.frombuffer(content, "<i4", min(_FIELDS, len(content) // _BYTES)).tolist()
    if len(header) < _FIELDS or not all(0 < number < 2**20 for number in header):
        raise TaskError(f"{path.name} must begin with seven sizes, got {header} ({path})", "delete it to download it again")
    shape = Shape(*header)
    if len(content) != _BYTES * (_FIELDS + numbers_in(shape)):
        raise TaskError(f"{path.name} must hold the weights of {shape}, got {len(content)} bytes ({path})", "download it again")
    model = Llama(shape)
    weights = torch.from_numpy(np.frombuffer(content, "<f4", offset=_BYTES * _FIELDS).copy())
    with torch.no_grad():
        for parameter in _in_file_order(model):
            parameter.copy_(weights[: parameter.numel()].view_as(parameter))
            weights = weights[parameter.numel() :]
    return model


def numbers_in(shape: Shape) -> int:
    """Count the numbers after the header: all weights, and the cosines and sines of all positions, which are computed here."""
    parameters = sum(parameter.numel() for parameter in _in_file_order(Llama(shape)))
    return parameters + shape.length * shape.head_width


def _in_file_order(model: Llama) -> list[nn.Parameter]:
    """List the parameters in the order of the file: each sort of weight of all layers, one after the other."""
    parts = (
        "attention_norm", "attention.query", "attention.key", "attention.value", "attention.out",
        "feed_norm", "feed.gate", "feed.down", "feed.up",
    )  # fmt: skip
    inside = [block.get_parameter(f"{part}.weight") for part in parts for block in model.blocks]
    return [model.embedding.weight, *inside, model.norm.weight]
