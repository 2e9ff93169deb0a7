"""Exports a model with a free batch size. Every compile mode except eager starts from this, and `autocut check` tries it first."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from autocut.task.batches import call
from autocut.task.library_noise import quietly

Free = tuple[tuple[int, ...], ...]
"""The free dimensions of each input, besides the batch."""


class PositionalModel(nn.Module):
    """Wraps a model of any calling form so that it takes tensors by position and returns one tensor.

    `names` are those of its inputs if it takes a dict. `free` is kept for those who export it.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...] | None, free: Free = ()) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.free = free

    def forward(self, *arguments: Tensor) -> Tensor:
        """Call the model in its own form and pick the output tensor."""
        return call(self.model, arguments if self.names is None else dict(zip(self.names, arguments, strict=True)))


def export_program(
    model: nn.Module, arguments: tuple[Tensor, ...], keywords: Mapping[str, Tensor] | None, shapes: Any
) -> ExportedProgram:
    """Export `model`, in eval mode and without gradients, called with `arguments` and `keywords`.

    torch runs the model's Python code with special tensors. Where that fails, it analyses the bytecode instead (``strict=True``).
    That takes longer and refuses more of Python, but it keeps a free batch size where the code calls ``len(x)``.

    Args:
        model: The model.
        arguments: Example inputs by position.
        keywords: Example inputs by name.
        shapes: The dimensions that stay free, as `torch.export.export` takes them.

    Raises:
        Exception: torch has a dozen types of its own, and passes on everything that the model raises. It is the error of the first
            attempt; the error of the second is its `__cause__`.
    """
    keywords = None if keywords is None else dict(keywords)
    with quietly(), _silently(), torch.no_grad():
        try:
            return torch.export.export(model, arguments, keywords, dynamic_shapes=shapes)
        except Exception as error:
            first = error
        try:
            return torch.export.export(model, arguments, keywords, dynamic_shapes=shapes, strict=True)
        except Exception as second:
            raise first from second


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """Hide log lines of every level, and what is printed: where torch (2.13) gives up, it prints the graph that it has so far."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
