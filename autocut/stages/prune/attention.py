"""Layers of other shapes, rewritten with `nn.Linear`, so that heads and neurons can be cut out of them.

`nn.MultiheadAttention` is as wide as the stream that it reads, whatever its number of heads: it cannot lose one. `Attention` can.
transformers' `Conv1D` (GPT-2) is a linear layer with a transposed matrix, which few libraries know.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.stages.prune.layers import answer, is_close
from autocut.task.batches import Inputs, call
from autocut.task.task import evaluation_mode


class Attention(nn.Module):
    """Multi-head attention whose heads together may be narrower than the stream. It is called as `nn.MultiheadAttention`.

    Self-attention has one projection, `in_proj`, for query, key and value; other attention has three. Biases that are added to keys
    and values, or zeros, are not supported.
    """

    in_proj_bias = None  # tells `nn.TransformerEncoderLayer` to call this module, not to read its weights
    _qkv_same_embed_dim = False

    def __init__(self, whole: nn.MultiheadAttention, *, reads_itself: bool) -> None:
        super().__init__()
        self.batch_first, self.dropout, self.head_dim = whole.batch_first, whole.dropout, int(whole.head_dim)
        self.in_proj = self.q_proj = self.k_proj = self.v_proj = None
        if reads_itself:
            self.in_proj = _linear(whole.in_proj_weight, whole.in_proj_bias)
        else:
            weights: Sequence[Tensor] = (whole.q_proj_weight, whole.k_proj_weight, whole.v_proj_weight)
            if whole.in_proj_weight is not None:
                weights = whole.in_proj_weight.chunk(3)
            biases = [None] * 3 if whole.in_proj_bias is None else whole.in_proj_bias.chunk(3)
            self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(whole.out_proj.weight, whole.out_proj.bias)
        self.train(whole.training)

    @property
    def num_heads(self) -> int:
        """Number of heads that are left."""
        return int(self.out_proj.in_features) // self.head_dim

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Attend as `nn.MultiheadAttention` does; `is_causal` is only a hint there, so the mask is what counts."""
        is_batched = query.dim() == 3
        if not is_batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        heads = self._heads(query, key, value)
        attended, weights = self._attend(*heads, self._mask(heads[0], key_padding_mask, attn_mask), need_weights)
        answer = self.out_proj(attended.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not is_batched:
            return answer[0], None if weights is None else weights[0]
        return answer if self.batch_first else answer.transpose(0, 1), weights

    def _heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value of shape (n, heads, length, head_dim)."""
        if self.in_proj is not None:
            projected = self.in_proj(query).unflatten(-1, (3, -1, self.head_dim))
            query, key, value = projected.unbind(-3)
        else:
            layers = ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
            query, key, value = (layer(read).unflatten(-1, (-1, self.head_dim)) for layer, read in layers)  # type: ignore[misc]
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _mask(self, query: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> Tensor | None:
        """Return what is added to the scores, of a shape that fits (n, heads, length, keys); None for nothing."""
        padding = None if key_padding_mask is None else _additive(key_padding_mask, query)[:, None, None]
        if attn_mask is None:
            return padding
        mask = _additive(attn_mask, query)
        mask = mask.view(*query.shape[:2], *mask.shape[1:]) if mask.dim() == 3 else mask
        return mask if padding is None else mask + padding

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return functional.scaled_dot_product_attention(query, key, value, mask, dropout), None
        scores = query @ key.transpose(-1, -2) / self.head_dim**0.5
        weights = functional.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
        return weights @ value, weights


def with_linear_layers(model: nn.Module) -> nn.Module:
    """Return a copy of `model` in which every `Conv1D` is an `nn.Linear` that computes the same."""
    copied = copy.deepcopy(model)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "Conv1D" and hasattr(child, "nf"):
                weight, bias = child.get_parameter("weight"), child.get_parameter("bias")
                setattr(parent, name, _linear(weight.T, bias).train(child.training))
    return copied


def open_attention(model: nn.Module, inputs: Inputs) -> nn.Module:
    """Return a copy of `model` with an `Attention` in place of every `nn.MultiheadAttention`.

    Where the copy would give other answers, `model` itself is returned. A `nn.TransformerEncoder` no longer skips padding with
    nested tensors, which would leave zeros where padding was.
    """
    opened = copy.deepcopy(model)
    for module in opened.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # it reads weights that will not be there
    reads_itself = _what_reads_itself(opened, inputs)
    for parent in list(opened.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention) and child in reads_itself:
                setattr(parent, name, Attention(child, reads_itself=reads_itself[child]))
    with evaluation_mode(model), evaluation_mode(opened), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        return opened if reads_itself and is_close(answer(opened, inputs), answer(model, inputs)) else model


@torch.no_grad()
def _what_reads_itself(model: nn.Module, inputs: Inputs) -> dict[nn.Module, bool]:
    """Return the attentions that `Attention` can stand for, and whether each is self-attention in every call."""
    found: dict[nn.Module, bool] = {}

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        query, key, value = [*args, *(kwargs[name] for name in ("query", "key", "value") if name in kwargs)][:3]
        found[module] = found.get(module, True) and module.kdim == module.embed_dim and query is key and key is value

    hooks = [
        module.register_forward_pre_hook(look, with_kwargs=True)
        for module in model.modules()
        if type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn
    ]
    try:
        with evaluation_mode(model):
            call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a layer with copies of `weight`, shape (out, in), and `bias`; it is as trainable as `weight`."""
    rows, columns = weight.shape
    layer = nn.Linear(columns, rows, bias=bias is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(weight.requires_grad)
