"""Orders that follow the training: the loss that the model itself had on each example when it last saw it.

Such an order is asked before each epoch. The epoch shows as many examples as the plan says, the first of the order, each once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.recipe import Value
from autocut.registry import Method
from autocut.stages.train.plan import is_changed
from autocut.stages.train.registries import Order, OrderOptions, orders
from autocut.task.kinds import Kind


class CurrentLosses:
    """The losses of one training, shape (n,), and the order that follows them.

    An example that the training has not shown yet has the teacher's loss, or an infinite one where there is no teacher.
    """

    def __init__(self, method: Method[Order, OrderOptions], initial: NDArray[np.float64], kind: Kind) -> None:
        self._method = method
        self._losses = initial.copy()
        self._kind = kind

    def draw_epoch(self, size: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Return the `size` examples of an epoch in the order in which they are shown, and their weights (None: all weigh 1)."""
        first = self._method.function(self._losses, generator)[:size]
        drawn = generator.permutation(first)
        weigh = self._method.options.weigh
        return drawn, None if weigh is None else weigh(self._losses, drawn)

    def record(self, indices: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Take in what the model answered to the examples at `indices`.

        The loss is called with one example at a time, because for a batch its contract is only the mean.
        """
        with torch.no_grad():
            rows = [self._kind.loss(outputs[at : at + 1], targets[at : at + 1]) for at in range(len(targets))]
            self._losses[indices.numpy()] = torch.stack(rows).double().cpu().numpy()

    def state(self) -> Tensor:
        """What a checkpoint keeps."""
        return torch.from_numpy(self._losses.copy())

    def restore(self, state: Tensor) -> None:
        """Go on from what a checkpoint kept."""
        self._losses = state.numpy().copy()


def current_losses(
    settings: Mapping[str, Value], examples: int, difficulty: NDArray[np.float64] | None, kind: Kind
) -> CurrentLosses | None:
    """Return the losses that a training with `settings` keeps; None where its order does not follow them."""
    if not is_changed(settings, "curriculum.schedule"):
        return None
    method = orders.method(str(settings["curriculum.order"]))
    if not method.options.follows_training:
        return None
    return CurrentLosses(method, np.full(examples, np.inf) if difficulty is None else difficulty, kind)
