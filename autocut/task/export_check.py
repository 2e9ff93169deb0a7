"""The part of `autocut check` that exports the model with a free batch size, and finds the user's line where that fails."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from autocut.errors import Fault
from autocut.task.batches import Inputs, pad, take, tensors
from autocut.task.dimensions import Dynamic
from autocut.task.exporting import PositionalModel, export_program
from autocut.task.task import Task

_PLACE = re.compile(r'File "([^"]+)", line (\d+), in .*\n\s*(.*)')
"""How Python, and the messages of torch (2.13), name a line of source, which follows."""
_LIBRARIES = {"site-packages", "dist-packages"}
_PACKAGE, _STANDARD_LIBRARY = Path(__file__).parents[1], Path(sysconfig.get_path("stdlib"))
_GUIDE = "see https://pytorch.org/docs/stable/export.html"


def export_faults(task: Task, model: nn.Module, inputs: Inputs, dynamic: Dynamic | None = None) -> Iterator[Fault]:
    """A model that cannot be exported with a free batch dimension, or whose export answers otherwise.

    Every compile mode except eager starts from the export. The dimensions that `dynamic` names stay free, too.
    """
    example = pad(take(inputs, 2), 2)
    arguments = tuple(tensors(example).values())
    batch = Dim("batch", min=1, max=65536)
    free = tuple({0: batch} | dict.fromkeys((dynamic or {}).get(name, {}), Dim.DYNAMIC) for name in tensors(example))
    called = PositionalModel(model, tuple(example) if isinstance(example, dict) else None)
    try:
        program = export_program(called, arguments, None, (free,))
    except Exception as error:
        # torch.export raises a dozen types of its own, and passes on everything that the model raises.
        yield _refusal(task, error)
        return
    yield from _other_answers(program, called, tuple(tensors(pad(take(inputs, 3), 3)).values()))


def _other_answers(program: ExportedProgram, model: nn.Module, arguments: tuple[Tensor, ...]) -> Iterator[Fault]:
    """An export that answers otherwise than the model at another batch size: it kept a number that the example had."""
    try:
        with torch.no_grad():
            expected, answered = model(*arguments), program.module()(*arguments)
    except Exception as error:
        # The graph may refuse the other batch size in any way.
        yield Fault(
            f"task.model must be exportable by torch.export with a free batch size, got {_first_lines(error)} "
            f"from the export at batch size {len(arguments[0])}",
            f"take the sizes of tensors from x.shape, not from numbers that were noted earlier; {_GUIDE}",
        )
        return
    if answered.shape != expected.shape or not torch.allclose(answered, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        yield Fault(
            "task.model must answer the same when torch.export has exported it, got another answer",
            f"forward() must compute with tensors alone, and keep nothing from one call to the next; {_GUIDE}",
        )


def _refusal(task: Task, error: Exception) -> Fault:
    """Say what torch found, in which line of the user's code, and what to write there."""
    place, code = _place(task, error)
    subject = "task.model must be exportable by torch.export with a free batch size"
    where = f" in {place}: {code}" if place else ""
    text = str(error)
    if "specialized it to be a constant" in text or "was inferred to be a constant" in text:
        return Fault(f"{subject}, got a batch size that the code turns into a constant{where}", _constant_hint(code))
    if "data-dependent" in text:
        return Fault(
            f"{subject}, got code that depends on the values of a tensor{where}",
            f"choose with torch.where() or a multiplication by a mask, not with if, while, int() or .item(); {_GUIDE}",
        )
    return Fault(
        f"{subject}, got {_first_lines(error)}{where}", f"torch.export.export(model, inputs) shows the traceback; {_GUIDE}"
    )


def _constant_hint(code: str) -> str:
    """What to write instead of `code`."""
    if "for " in code or "zip(" in code:
        return "compute on the whole batch at once, not in a loop over its examples (torch.vmap helps)"
    if "len(" in code:
        return "write x.shape[0] instead of len(x), which Python turns into a plain number"
    return (
        "write x.shape[0] instead of len(x) or int(x.shape[0]), do not loop over the examples of a batch, "
        "and keep no tensor that is as long as one batch"
    )


def _place(task: Task, error: Exception) -> tuple[str, str]:
    """Place and code of the last line that belongs to no library, in either attempt; empty if there is none."""
    for found in (error, error.__cause__):
        if found is None:
            continue
        frames = [(frame.filename, str(frame.lineno), frame.line or "") for frame in traceback.extract_tb(found.__traceback__)]
        for file, line, code in reversed([*frames, *_PLACE.findall(str(found))]):
            if _is_users(task, Path(file)):
                return f"{Path(file).name}, line {line}", code.strip()
    return "", ""


def _is_users(task: Task, file: Path) -> bool:
    if file in task.source_files:
        return True
    is_library = file.is_relative_to(_PACKAGE) or file.is_relative_to(_STANDARD_LIBRARY) or bool(_LIBRARIES & set(file.parts))
    return file.is_file() and not is_library


def _first_lines(error: Exception) -> str:
    """The first line with content. torch.export sometimes begins with a bare heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else ""
    return f"{type(error).__name__}: {first if len(first) > 30 else ' '.join(lines[:2])}"
