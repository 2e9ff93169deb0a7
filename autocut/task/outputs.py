"""Which output of a model the task is about, where the model has several: ``Task(output=...)``.

    output="out"     the field of a dict, of a dataclass or of a transformers output
    output=0         the position in a tuple or list

The model is wrapped, so that everything after it sees one tensor: loss, metric, pruning, and the exported artifact, from which
`torch.export` drops what only the other outputs need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from autocut.errors import TaskError, nearest_hint, quoted


class OneOutput(nn.Module):
    """Calls `model` in any form and returns the output `choice`; the other outputs are dropped."""

    def __init__(self, model: nn.Module, choice: str | int) -> None:
        super().__init__()
        self.model = model
        self.choice = choice

    def forward(self, *arguments: Tensor, **named: Tensor) -> Tensor:
        """Return one output tensor."""
        return pick_output(self.model(*arguments, **named), self.choice)


def output_tensor(output: Any) -> Tensor:
    """Find the tensor in a model's output: itself, `.logits`, ``["logits"]``, or the first of a tuple or list.

    Raises:
        TaskError: there is none; the hint names an output that `Task(output=...)` can pick.
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    raise TaskError(
        f"a model's output must be a tensor, have logits, or be a tuple that starts with a tensor, got {type(output).__name__}",
        f"name the output: {_hint('', parts)}" if _tensors(parts := _parts(output)) else "return a tensor",
    )


def pick_output(output: Any, choice: str | int) -> Tensor:
    """Return the tensor named `choice` of a model's `output`.

    Raises:
        TaskError: there is no such output, or it is no tensor.
    """
    parts = _parts(output)
    if choice not in parts:
        raise TaskError(f"task.output must be {_told(parts, output)}, got {quoted(choice)}", _hint(choice, parts))
    picked = parts[choice]
    if not isinstance(picked, Tensor):
        raise TaskError(
            f"task.output must name a tensor, got {quoted(choice)}, which is a {type(picked).__name__}", _hint("", parts)
        )
    return picked


def _parts(output: Any) -> dict[str | int, Any]:
    """Everything that can be picked, by name and by position."""
    if isinstance(output, Tensor):
        return {}
    parts: dict[str | int, Any] = {}
    if isinstance(output, (tuple, list)):
        parts |= dict(enumerate(output))
        parts |= {name: getattr(output, name) for name in getattr(output, "_fields", ())}
    elif isinstance(output, Mapping):
        # A transformers output is a mapping too; its positions are those of its fields that are not None.
        parts |= {**dict(enumerate(output.values())), **output}
    elif hasattr(output, "__dict__"):
        parts |= vars(output)
    return parts


def _tensors(parts: Mapping[str | int, Any]) -> dict[str | int, Any]:
    return {name: part for name, part in parts.items() if isinstance(part, Tensor)}


def _told(parts: Mapping[str | int, Any], output: Any) -> str:
    found = _tensors(parts)
    # Positions only where there are no names: each output is told once.
    names: list[str | int] = [name for name in found if isinstance(name, str)]
    if names or found:
        return f"one of the model's outputs {', '.join(map(repr, names or found))}"
    return f"left out for a model that answers with one {type(output).__name__}"


def _hint(choice: str | int, parts: Mapping[str | int, Any]) -> str:
    names = [name for name in _tensors(parts) if isinstance(name, str)]
    if names and (nearest := nearest_hint(str(choice), names)):
        return nearest
    first: str | int | None = next(iter([*names, *_tensors(parts)]), None)
    return "leave output= out" if first is None else f"output={quoted(first)}"
