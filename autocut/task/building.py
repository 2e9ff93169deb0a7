"""Calls the functions of the user that build models, and says what is wrong with what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn
from torch.nn.parameter import is_lazy

from autocut.errors import TaskError
from autocut.task.file import describe_error
from autocut.task.folding import Folded, fold_weights
from autocut.task.outputs import OneOutput

DEBUG_HINT = "call it in `python -i task.py` to see the traceback"
CPU_HINT = "keep the model and its weights on the CPU: torch.load(..., map_location='cpu'); --train-on cuda trains on a GPU"


def build(function: Callable[[], nn.Module], subject: str, folder: Path | None, output: str | int | None) -> nn.Module:
    """Return the model that `function` builds, in eval mode; `output` picks one of its outputs.

    Args:
        function: The user's.
        subject: What the user calls it, such as ``task.model``.
        folder: Folder of the task file, whose lines are named in errors.
        output: As `Task.output`.

    Raises:
        TaskError: the function fails, or does not return a model with known shapes.
    """
    try:
        model = function()
    except TaskError:
        raise
    except Exception as error:
        # A user's function may raise anything; the user must fix it.
        raise TaskError(
            f"{subject} must be a function that builds a model, got {describe_error(error, folder)}", _build_hint(function, error)
        ) from error
    name = subject.partition(".")[2]
    if not isinstance(model, nn.Module):
        hint = "load the weights into a model, and return it: net.load_state_dict(weights); return net"
        raise TaskError(
            f"{subject} must return a torch.nn.Module, got {type(model).__name__}",
            hint if isinstance(model, Mapping) else f"{name}=lambda: net",
        )
    for tensor_name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise TaskError(
                f"{subject} must return a model with known shapes, got the uninitialized {tensor_name}",
                f"run one batch through the model inside {name}()",
            )
    return (model if output is None else OneOutput(model, output)).eval()


def _build_hint(function: Callable[[], nn.Module], error: Exception) -> str:
    """Return what to type where a function that builds a model fails in one of the usual ways."""
    if "CUDA" in str(error):
        return CPU_HINT
    if isinstance(error, FileNotFoundError):
        return "name the file from the task's folder: Path(__file__).parent / 'weights.pt'"
    if isinstance(function, type) and isinstance(error, TypeError):
        return f"give a function without arguments: lambda: {function.__name__}(...)"
    return DEBUG_HINT


def fold(model: nn.Module, subject: str, folder: Path | None) -> Folded:
    """Fold the computed weights of `model` in place, and return what was folded.

    Raises:
        TaskError: a weight cannot be folded.
    """
    try:
        return fold_weights(model)
    except Exception as error:
        # A parametrization may be the user's own.
        raise TaskError(
            f"{subject} must have weights that can be folded, got {describe_error(error, folder)}",
            "call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') before the model is returned",
        ) from error
