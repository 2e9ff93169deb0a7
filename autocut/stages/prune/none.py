"""The control: nothing is removed."""

from __future__ import annotations

import copy

from torch import nn

from autocut.stages.prune import Pruned, PruneData, pruners


@pruners.register("none")
def prune_none(model: nn.Module, ratio: float, data: PruneData) -> Pruned:  # noqa: ARG001 - the signature of every method
    """Keep every weight."""
    return Pruned(copy.deepcopy(model))
