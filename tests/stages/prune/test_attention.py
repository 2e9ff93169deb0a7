"""The attention that can lose heads answers as torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocut.stages.prune.attention import Attention


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("reads_itself", [True, False])
def test_it_answers_as_multihead_attention(batch_first, bias, need_weights, reads_itself):
    """Self-attention and cross-attention, with a causal mask, a mask for each head, and a mask of padding."""
    whole = nn.MultiheadAttention(16, 4, bias=bias, batch_first=batch_first).eval()
    query = torch.randn(5, 5, 16)
    key = value = query if reads_itself else torch.randn(5, 5, 16)
    own = Attention(whole, reads_itself=reads_itself)
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    padding = torch.zeros(5, 5, dtype=torch.bool)
    padding[:, 3:] = True
    for masks in (
        {},
        {"attn_mask": causal},
        {"attn_mask": torch.randn(20, 5, 5)},
        {"attn_mask": causal, "key_padding_mask": padding},
    ):
        wanted, weights = whole(query, key, value, need_weights=need_weights, **masks)
        found, own_weights = own(query, key, value, need_weights=need_weights, **masks)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(own_weights, weights)


@pytest.mark.parametrize("average", [True, False])
def test_it_takes_one_sequence_without_a_batch(average):
    """As torch's own does, with a mask of padding."""
    whole = nn.MultiheadAttention(16, 4).eval()
    x, padding = torch.randn(5, 16), torch.tensor([False] * 4 + [True])
    found = Attention(whole, reads_itself=True)(x, x, x, key_padding_mask=padding, average_attn_weights=average)
    wanted = whole(x, x, x, key_padding_mask=padding, average_attn_weights=average)

    torch.testing.assert_close(found, wanted)


def test_it_takes_keys_and_values_of_other_widths():
    """Three projections of their own."""
    whole = nn.MultiheadAttention(16, 4, kdim=12, vdim=8).eval()
    query, key, value = torch.randn(5, 2, 16), torch.randn(7, 2, 12), torch.randn(7, 2, 8)

    torch.testing.assert_close(Attention(whole, reads_itself=False)(query, key, value), whole(query, key, value))
