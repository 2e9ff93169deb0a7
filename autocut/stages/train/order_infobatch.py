"""InfoBatch: leave out well-learned examples at random, and let those that stay stand for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autocut.stages.train.registries import orders


def weigh_infobatch(losses: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights of the examples in an epoch: those of the well-learned sum up to the number of all well-learned ones."""
    learned = _are_learned(losses)
    is_learned = learned[drawn]
    return np.where(is_learned, learned.sum() / max(1, is_learned.sum()), 1.0)


@orders.register("infobatch", follows_training=True, weigh=weigh_infobatch)
def order_infobatch(losses: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Leave out, at random, examples on which the model has less than its mean loss; those that stay weigh more instead.

    So the gradient of an epoch is, on average, that of all the data. The schedule says how many examples stay; `hold` is the
    published one, which uses all the data in the end. An example that was not seen yet counts as not learned.

    References:
        Qin et al. 2024, https://arxiv.org/abs/2303.04947
    """
    shuffled = generator.permutation(len(losses))
    return shuffled[np.argsort(_are_learned(losses)[shuffled], kind="stable")]


def _are_learned(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    known = losses[np.isfinite(losses)]
    return losses < (known.mean() if len(known) else -np.inf)
