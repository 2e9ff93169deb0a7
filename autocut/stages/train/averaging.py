"""An average of the weights that a training passes through: it is calmer than the last of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn

from autocut.recipe import AVERAGING, Value
from autocut.stages.device import on_cpu


class AveragedWeights:
    """Exponential moving average of the parameters and buffers of `model`; its own copy of the model has them.

    Each step keeps the share `decay` of the average. The first steps keep less, so that the average soon leaves the weights that
    the training started from.

    References:
        Polyak and Juditsky 1992; Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of `model` after a step."""
        self._steps += 1
        share = 1 - min(self._decay, (1 + self._steps) / (10 + self._steps))
        pairs = zip(_tensors(self.model), _tensors(model), strict=True)
        for own, new in pairs:
            if own.is_floating_point():
                own.lerp_(new, share)
            else:
                own.copy_(new)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"model": on_cpu(self.model.state_dict()), "steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.model.load_state_dict(state["model"])
        self._steps = state["steps"]


def averaged_weights(settings: Mapping[str, Value], model: nn.Module) -> AveragedWeights | None:
    """Return the average that a training of `model` with `settings` keeps; None where it keeps none."""
    decay = float(settings.get(AVERAGING, 0))
    return AveragedWeights(model, decay) if decay else None


def _tensors(model: nn.Module) -> chain[torch.Tensor]:
    return chain(model.parameters(), model.buffers())
