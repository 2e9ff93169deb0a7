"""Token sequences that grow."""

from __future__ import annotations

import torch
from torch import Tensor

from autocut.errors import InfeasibleRecipeError
from autocut.recipe import INPUT_GROWTH
from autocut.stages.train.registries import input_growths
from autocut.task.batches import Inputs, tensors, transform

_NAME = "sequence_length_warmup"
_MASK = "attention_mask"


@input_growths.register(_NAME, is_prefix=True, logits_dimensions=3)
def cut_sequences(inputs: Inputs, share: float) -> Inputs:
    """Begin with the first half of each sequence of tokens, and end with a third of the samples at full length.

    The length is dimension 1 of the first input of integers with two dimensions. Every input is cut in each dimension that is as
    long, but for the batch: so masks are cut with the tokens, square ones on both sides.

    Raises:
        InfeasibleRecipeError: no input is a sequence of tokens, or the first tokens of one are padding alone.

    References:
        Li, Zhang and He 2022, https://arxiv.org/abs/2108.06084
    """
    named = tensors(inputs)
    tokens = next((tensor for tensor in named.values() if _are_tokens(tensor)), None)
    if tokens is None:
        shapes = ", ".join(f"{tuple(tensor.shape[1:])} {tensor.dtype}".replace("torch.", "") for tensor in named.values())
        raise InfeasibleRecipeError(f"{INPUT_GROWTH} {_NAME!r} needs integer tokens of shape (length,), got {shapes}")
    length = tokens.shape[1]
    kept = max(1, round(share * length))
    mask = named.get(_MASK)
    if mask is not None and mask.shape == tokens.shape and (mask.any(1) & ~mask[:, :kept].any(1)).any():
        raise InfeasibleRecipeError(
            f"{INPUT_GROWTH} {_NAME!r} needs padding after the tokens, got {kept} first places without a token"
        )

    def cut(tensor: Tensor) -> Tensor:
        for dimension in range(1, tensor.dim()):
            if tensor.shape[dimension] == length:
                tensor = tensor.narrow(dimension, 0, kept)
        return tensor.contiguous()  # a model may look at the memory with `view`

    return transform(inputs, cut)


def _are_tokens(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
