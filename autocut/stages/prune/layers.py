"""What several methods ask about the layers of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autocut.task.batches import Inputs, call
from autocut.task.task import evaluation_mode

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
TRACING_ERRORS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, AttributeError, KeyError)
"""What a model may raise that was cut where it must not be."""


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


@torch.no_grad()
def answer(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return what `model` answers, in the mode that it is in."""
    return call(model, inputs)


def is_close(left: Tensor, right: Tensor) -> bool:
    """Whether two answers are equal but for the order in which floating-point numbers were added."""
    scale = float(right.abs().max())
    return torch.allclose(left, right, rtol=1e-3, atol=1e-4 * max(scale, 1e-6))


def first_line(error: BaseException) -> str:
    """Return the first line of what `error` says, or its class where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__
