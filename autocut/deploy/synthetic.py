"""Inputs that look like the user's and are none of them, for bundles that must not carry real data.

Each tensor keeps its dtype, its shape and its range. Integers are uniform within the range of the real batch. Floats are normal,
with the mean and the spread of the real batch, within its range. No order, no row and no target of the real batch is kept.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from autocut.deploy.examples import ExampleBatch, collect_examples
from autocut.errors import InfeasibleRecipeError
from autocut.stages.lowering import Predict
from autocut.task.batches import batch_length, take, transform

_EXAMPLES = 64


def synthetic_examples(predict: Predict, real: ExampleBatch, seed: int) -> tuple[ExampleBatch, ...]:
    """Return at most 64 examples with inputs like those of `real`, targets of zero, and the outputs of `predict`.

    Raises:
        InfeasibleRecipeError: the model refuses inputs that it does not know.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = transform(real.inputs, partial(_draw, generator=generator))
    inputs = take(drawn, min(_EXAMPLES, batch_length(drawn)))
    targets = torch.zeros_like(torch.from_numpy(real.targets[: batch_length(inputs)]))
    try:
        return collect_examples(predict, [(inputs, targets)])
    except Exception as error:
        # A runtime may raise anything where inputs must keep a rule, such as lengths in falling order.
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InfeasibleRecipeError(f"share_examples=False: the model must answer synthetic inputs, got {reason}") from error


def _draw(real: Tensor, generator: torch.Generator) -> Tensor:
    if real.is_floating_point():
        values = real[real.isfinite()].double()
        if not len(values):
            return torch.zeros_like(real)
        drawn = torch.randn(real.shape, generator=generator, dtype=torch.float64) * values.std(correction=0) + values.mean()
        return drawn.clamp(values.min(), values.max()).to(real.dtype)
    whole = real.long()
    return torch.randint(int(whole.min()), int(whole.max()) + 1, real.shape, generator=generator).to(real.dtype)
