"""InfoBatch: leave out well-learned examples at random, and let those that stay stand for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autocut.stages.train.registries import orders

_OF_LEARNED = 2
"""Where all others stay, one of so many well-learned examples does, as published."""


def weigh_infobatch(losses: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights of the examples in an epoch: 1, and more for the well-learned, of which a smaller share is there."""
    learned = _are_learned(losses)
    is_learned = learned[drawn]
    share, share_of_others = is_learned.sum() / max(1, learned.sum()), (~is_learned).sum() / max(1, (~learned).sum())
    return np.where(is_learned, share_of_others / share if share else 1.0, 1.0)


@orders.register("infobatch", follows_training=True, weigh=weigh_infobatch)
def order_infobatch(losses: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Leave out, at random, examples on which the model has less than its mean loss; those that stay weigh more instead.

    So the gradient of an epoch points, on average, where that of all the data does. The schedule says how many examples stay;
    `hold` is the published one, which uses all the data in the end. An example that was not seen yet counts as not learned. Where
    fewer examples stay than are not learned, some of these are left out, too.

    References:
        Qin et al. 2024, https://arxiv.org/abs/2303.04947
    """
    return np.argsort(generator.random(len(losses)) * np.where(_are_learned(losses), _OF_LEARNED, 1))


def _are_learned(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    known = losses[np.isfinite(losses)]
    return losses < (known.mean() if len(known) else -np.inf)
