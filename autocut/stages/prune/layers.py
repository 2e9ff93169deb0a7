"""What several methods ask about the layers of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autocut.task.batches import Inputs, call
from autocut.task.task import evaluation_mode

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the convolutions and linear layers of `model`."""
    return [module for module in model.modules() if isinstance(module, LAYERS)]


def last_to_run(model: nn.Module, inputs: Inputs) -> nn.Module | None:
    """Return the layer that runs last: it gives the answer. None where no layer is called."""
    called = calls(model, layers_of(model), inputs)
    return called[-1] if called else None


def calls(model: nn.Module, modules: Sequence[nn.Module], inputs: Inputs) -> list[nn.Module]:
    """Run `model` in eval mode, and return the calls of `modules` in their order."""
    called: list[nn.Module] = []
    hooks = [module.register_forward_hook(lambda module, _inputs, _output: called.append(module)) for module in modules]
    try:
        with evaluation_mode(model), torch.no_grad():
            call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return called
