"""The only writer to the terminal: stdout is data, everything else goes to stderr.

`NO_COLOR` is obeyed, and nothing is coloured or redrawn where stderr is not a terminal.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from autocut.budget import format_duration
from autocut.errors import AutocutError, FaultsError

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.text import Text

DEFAULT_WIDTH = 80
NARROWEST_COLUMN = 16


class SearchProgress(Protocol):
    """What a search tells while it runs; nothing is required, and what is left out stays as it was."""

    def update(
        self,
        *,
        spent_s: float | None = None,
        done: int | None = None,
        stopped: int | None = None,
        failed: int | None = None,
        front: int | None = None,
        best: str | None = None,
        stage: str | None = None,
    ) -> None:
        """Show where the search stands. Cheap: call it as often as there is news."""

    def trial_line(self, text: str) -> None:
        """Tell that one trial ended."""


class Console:
    """Writes data to one stream and all the rest to another (default: stdout and stderr of the moment of writing)."""

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._stdout = stdout
        self._stderr = stderr

    def bound(self) -> Console:
        """Return a console that keeps writing to the streams of this moment, whatever becomes of `sys.stderr` meanwhile."""
        return Console(self._stdout or sys.stdout, self._stderr or sys.stderr)

    def data(self, text: str) -> None:
        """Write a line of what was asked for to stdout."""
        _write(self._stdout or sys.stdout, text)

    def document(self, document: Mapping[str, Any]) -> None:
        """Write one JSON document to stdout, without colour. Numbers that JSON does not have (NaN, infinity) become null."""
        self.data(json.dumps(_plain(document), indent=2, allow_nan=False, default=str))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a table to stdout; on a terminal its last column is wrapped to fit, elsewhere a row is a line."""
        width = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns if (self._stdout or sys.stdout).isatty() else sys.maxsize
        self.data("\n".join(table_lines(columns, rows, width)))

    def info(self, text: str) -> None:
        """Write a line that is not data to stderr."""
        _write(self._stderr or sys.stderr, text)

    def plan(self, lines: Iterable[str]) -> None:
        """Tell what the search is going to do, before it does it."""
        self.info("plan:")
        for line in lines:
            self.info(f"  {line}")

    def warning(self, message: str, hint: str | None = None) -> None:
        """Tell what should be known, but stops nothing."""
        self._labelled("warning", "33", message, hint)

    def error(self, error: AutocutError) -> None:
        """Tell an error as ``error:`` and ``hint:``; several faults are numbered, each with its place and its hint."""
        self._labelled("error", "31", error.message, error.hint)
        if isinstance(error, FaultsError):
            for number, fault in enumerate(error.faults, start=1):
                self.info(f"  {number}. {fault}")
                if fault.hint:
                    self.info(f"     {self._label('hint', '36')} {fault.hint}")

    def bug(self, error: BaseException) -> None:
        """Tell an exception that nobody expected, with its traceback."""
        self.info("".join(traceback.format_exception(error)).rstrip())
        self._labelled(
            "error", "31", f"this is a bug in autocut: {type(error).__name__}: {error}", "please report it with the traceback above"
        )

    @contextmanager
    def search_progress(self, budget_s: float, already_spent_s: float = 0.0) -> Iterator[SearchProgress]:
        """Show progress over the budget while the block runs: a bar on a terminal, elsewhere a plain line per trial."""
        stream = self._stderr or sys.stderr
        if not stream.isatty() or os.environ.get("TERM") == "dumb":
            yield _PlainProgress(self, budget_s, already_spent_s)
            return
        bar = _BarProgress(stream, budget_s, already_spent_s)
        with bar.live:
            yield bar

    def _labelled(self, label: str, colour: str, message: str, hint: str | None) -> None:
        self.info(f"{self._label(label, colour)} {message}")
        if hint:
            self.info(f"{self._label('hint', '36')} {hint}")

    def _label(self, label: str, colour: str) -> str:
        coloured = (self._stderr or sys.stderr).isatty() and not os.environ.get("NO_COLOR")
        return f"\x1b[1;{colour}m{label}:\x1b[0m" if coloured else f"{label}:"


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]], width: int = DEFAULT_WIDTH) -> list[str]:
    """Lay out a table in `width` columns: numbers to the right, words to the left, the last column wrapped under itself."""
    body = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_numeric(row[index]) for row in body) and bool(body) for index in range(len(columns))]
    widths = [max(len(row[index]) for row in [list(columns), *body]) for index in range(len(columns))]
    fixed = sum(widths[:-1]) + 2 * (len(columns) - 1)
    widths[-1] = min(widths[-1], max(NARROWEST_COLUMN, width - fixed))
    lines = []
    for row in [list(columns), ["-" * size for size in widths], *body]:
        words = textwrap.wrap(row[-1], max(1, widths[-1]), break_on_hyphens=False) or [""]
        cells = [*row[:-1], words[0]]
        padded = [cell.rjust(size) if right else cell.ljust(size) for cell, size, right in zip(cells, widths, numeric, strict=True)]
        lines.append("  ".join(padded).rstrip())
        lines.extend(" " * fixed + word for word in words[1:])
    return lines


class _PlainProgress:
    """A line per trial, for logs."""

    def __init__(self, console: Console, budget_s: float, spent_s: float) -> None:
        self._console = console
        self._budget_s = budget_s
        self._spent_s = spent_s

    def update(
        self,
        *,
        spent_s: float | None = None,
        done: int | None = None,  # noqa: ARG002
        stopped: int | None = None,  # noqa: ARG002
        failed: int | None = None,  # noqa: ARG002
        front: int | None = None,  # noqa: ARG002
        best: str | None = None,  # noqa: ARG002
        stage: str | None = None,  # noqa: ARG002
    ) -> None:
        if spent_s is not None:
            self._spent_s = spent_s

    def trial_line(self, text: str) -> None:
        self._console.info(f"[{format_duration(self._spent_s)} of {format_duration(self._budget_s)}] {text}")


class _BarProgress:
    """A bar over the budget with one line of news under it, redrawn four times a second."""

    def __init__(self, stream: TextIO, budget_s: float, spent_s: float) -> None:
        from rich.console import Console as RichConsole
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        self._budget = format_duration(budget_s)
        self._facts: dict[str, Any] = {"done": 0, "stopped": 0, "failed": 0, "front": 0, "best": None, "stage": None}
        self._news: Text = Text(no_wrap=True, overflow="ellipsis")
        self._bar = Progress(BarColumn(bar_width=None), TextColumn("{task.fields[clock]}"), expand=True)
        self._task: TaskID = self._bar.add_task("budget", total=budget_s, clock="")
        self._console = RichConsole(file=stream, highlight=False, emoji=False)
        # stdout stays out of it: it is data, and may go elsewhere.
        self.live = Live(Group(self._bar, self._news), console=self._console, redirect_stdout=False, transient=True)
        self.update(spent_s=spent_s)

    def update(
        self,
        *,
        spent_s: float | None = None,
        done: int | None = None,
        stopped: int | None = None,
        failed: int | None = None,
        front: int | None = None,
        best: str | None = None,
        stage: str | None = None,
    ) -> None:
        if spent_s is not None:
            self._bar.update(self._task, completed=spent_s, clock=f"{format_duration(round(spent_s))} of {self._budget}")
        news = {"done": done, "stopped": stopped, "failed": failed, "front": front, "best": best, "stage": stage}
        self._facts |= {name: value for name, value in news.items() if value is not None}
        self._news.plain = progress_line(**self._facts)

    def trial_line(self, text: str) -> None:
        self._console.print(text, markup=False)


def progress_line(done: int, stopped: int, failed: int, front: int, best: str | None, stage: str | None) -> str:
    """The line of news under the bar, the most important first, because a narrow terminal cuts it."""
    parts = [f"{done} done, {stopped} stopped, {failed} failed", f"front {front}"]
    parts += [f"best {best}"] if best else []
    parts += [stage] if stage else []
    return " | ".join(parts)


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell == "-" or cell[:2].lstrip("+-$").isdigit()


def _plain(value: Any) -> Any:
    """Replace what JSON cannot say, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
