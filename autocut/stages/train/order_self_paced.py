"""Self-paced learning: the model's own losses say what is easy, and they change while it learns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autocut.stages.train.registries import orders


@orders.register("self_paced", needs_difficulty=True, follows_training=True)
def order_self_paced(losses: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:  # noqa: ARG001
    """Bring the examples with the smallest loss of the model itself into use first, ranked anew before each epoch.

    The published threshold on the loss, which grows, is here the loss below which the share of the schedule lies.

    References:
        Kumar et al. 2010, Self-Paced Learning for Latent Variable Models
    """
    return np.argsort(losses, kind="stable")
