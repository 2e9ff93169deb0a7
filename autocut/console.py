"""The only writer to the terminal: data goes to stdout, everything else to stderr.

Nothing is coloured or redrawn if stderr is not a terminal, or if `NO_COLOR` is set.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypedDict, Unpack

from autocut.budget import format_duration
from autocut.errors import AutocutError, FaultsError

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.text import Text

DEFAULT_WIDTH = 80
NARROWEST_COLUMN = 16
SILENCE_S = 29.0
"""After so many seconds without a line, one says what is being done: with the second until the next look, every 30 seconds."""
_MOST_FAULTS = 25
"""More of them are a file of another kind, or the same slip again."""


class SearchNews(TypedDict, total=False):
    """What changed in a running search: seconds worked, numbers of trials, size of the front, best point and present stage."""

    spent_s: float
    done: int
    stopped: int
    failed: int
    front: int
    best: str
    stage: str


class SearchProgress(Protocol):
    """Shows a running search."""

    def update(self, **news: Unpack[SearchNews]) -> None:
        """Show what changed. What is left out stays as it was. It is cheap: call it about every second."""

    def trial_line(self, text: str) -> None:
        """Report that one trial ended."""


class Console:
    """Writes data to one stream and everything else to another; by default to the stdout and stderr of the moment of writing."""

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None, *, tells_errors: bool = True) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._tells_errors = tells_errors
        self.is_json = False
        """Whether stdout has one JSON document, even if the command fails."""

    def bound(self) -> Console:
        """Return a console that keeps the streams of this moment, even if `sys.stderr` is replaced later."""
        return Console(self._stdout or sys.stdout, self._stderr or sys.stderr)

    def data(self, text: str) -> None:
        """Write a line of data to stdout: exactly, but for a terminal, which gets no control characters."""
        stream = self._stdout or sys.stdout
        _write(stream, printable(text) if stream.isatty() else text)

    def document(self, document: Mapping[str, Any]) -> None:
        """Write one JSON document to stdout, without colour. NaN and infinity become null, because JSON has neither."""
        self.data(json.dumps(_plain(document), indent=2, allow_nan=False, default=str))

    def prose(self, text: str) -> None:
        """Write sentences of data to stdout, a line each. A terminal gets them wrapped to its width."""
        self.data(_wrapped(text, self._stdout or sys.stdout))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a table to stdout. On a terminal its columns are wrapped to fit; elsewhere each row is one line."""
        self.data("\n".join(table_lines(columns, rows, self.terminal_width() or sys.maxsize)))

    def terminal_width(self) -> int | None:
        """Return the columns of the terminal that stdout is; None where it is none."""
        return _width_of(self._stdout or sys.stdout)

    def info(self, text: str) -> None:
        """Write a line that is not data to stderr, without control characters: it may quote a stranger's file."""
        _write(self._stderr or sys.stderr, printable(text))

    def remark(self, text: str) -> None:
        """Write sentences that are not data to stderr, a line each. A terminal gets them wrapped to its width."""
        self.info(_wrapped(text, self._stderr or sys.stderr))

    def plan(self, lines: Iterable[str]) -> None:
        """Announce what the search is going to do."""
        self.info("plan:")
        for line in lines:
            self.info(f"  {line}")

    def warning(self, message: str, hint: str | None = None) -> None:
        """Report a problem that does not stop the command."""
        self._labelled("warning", "33", message, hint)

    def error(self, error: AutocutError) -> None:
        """Report an error as ``error:`` and ``hint:``. Several faults are numbered, each with its place and its hint.

        A console that does not tell errors leaves it to the document. It tells 25 faults at most, and counts the others.
        """
        if self.is_json and not self._tells_errors:
            return
        self._labelled("error", "31", error.message, error.hint)
        if isinstance(error, FaultsError):
            for number, fault in enumerate(error.faults[:_MOST_FAULTS], start=1):
                self.info(f"  {number}. {fault}")
                if fault.hint:
                    self._label_line("hint", "36", fault.hint, indent="     ")
            if (more := len(error.faults) - _MOST_FAULTS) > 0:
                self.info(f"  and {more} more")

    def bug(self, error: BaseException) -> None:
        """Report an unexpected exception, with its traceback."""
        self.info("".join(traceback.format_exception(error)).rstrip())
        self._labelled(
            "error", "31", f"this is a bug in autocut: {type(error).__name__}: {error}", "please report it with the traceback above"
        )

    @contextmanager
    def search_progress(self, budget_s: float, already_spent_s: float = 0.0) -> Iterator[SearchProgress]:
        """Show progress over the budget while the block runs: a bar on a terminal, elsewhere one line for each trial."""
        stream = self._stderr or sys.stderr
        if not _is_terminal(stream):
            yield _PlainProgress(self, budget_s, already_spent_s)
            return
        bar = _BarProgress(stream, budget_s, already_spent_s)
        with bar.live:
            yield bar

    @contextmanager
    def busy(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Say what is being done, and for how long, while the block runs: always on a terminal, elsewhere every 30 seconds.

        Call what it yields with another phrase when something else is being done.
        """
        told = _Busy(self.bound(), doing)
        stream = self._stderr or sys.stderr
        thread = threading.Thread(target=told.tell_on_terminal if _is_terminal(stream) else told.tell_in_file, daemon=True)
        thread.start()
        try:
            yield told.now_doing
        finally:
            told.is_over.set()
            thread.join()

    def _labelled(self, label: str, colour: str, message: str, hint: str | None) -> None:
        self._label_line(label, colour, message)
        if hint:
            self._label_line("hint", "36", hint)

    def _label_line(self, label: str, colour: str, text: str, indent: str = "") -> None:
        stream = self._stderr or sys.stderr
        coloured = stream.isatty() and not os.environ.get("NO_COLOR")
        shown = f"\x1b[1;{colour}m{label}:\x1b[0m" if coloured else f"{label}:"
        _write(stream, f"{indent}{shown} {printable(text)}")


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` with every character escaped that moves a terminal's cursor, changes its direction, or is no character."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]], width: int = DEFAULT_WIDTH) -> list[str]:
    """Lay out a table in `width` characters: numbers to the right, words to the left.

    The last column is wrapped; where that is not enough, the widest of the others are wrapped too.
    """
    # Imported here: `autocut --help` needs no table, and must be instant.
    from rich.console import Console as RichConsole
    from rich.rule import Rule
    from rich.table import Table

    body = [[" ".join(cell_text(value).split("\n")) for value in row] for row in rows]
    cells = list(zip(columns, *body, strict=True))
    widths = _column_widths(cells, width - 2 * (len(columns) - 1))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column, column_width, (_, *column_cells) in zip(columns, widths, cells, strict=True):
        is_numeric = bool(body) and all(map(_is_numeric, column_cells))
        table.add_column(column, justify="right" if is_numeric else "left", width=column_width, overflow="fold")
    table.add_row(*[Rule(characters="-", style="none") for _ in columns])
    for row in body:
        table.add_row(*row)
    total = sum(widths) + 2 * (len(columns) - 1)
    writer = RichConsole(width=total, color_system=None, markup=False, emoji=False, highlight=False)
    with writer.capture() as written:
        writer.print(table)
    return [line.rstrip() for line in written.get().rstrip("\n").split("\n")]


def _column_widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return what each column gets of `room` characters. The last one is narrowed if that is enough, else whichever is widest.

    No column gets less than its longest word needs, up to `NARROWEST_COLUMN`; if that is too much, the table is too wide.
    """
    widths = [max(map(len, cells)) for cells in columns]
    least = [min(NARROWEST_COLUMN, max(len(word) for cell in cells for word in (cell.split() or [""]))) for cells in columns]
    if sum(widths[:-1]) + NARROWEST_COLUMN <= room:
        widths[-1] = min(widths[-1], room - sum(widths[:-1]))
    while sum(widths) > room and (spare := [at for at, width in enumerate(widths) if width > least[at]]):
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


class _PlainProgress:
    """One line for each trial, for logs; where none came for a while, a line that says what is being done."""

    def __init__(self, console: Console, budget_s: float, spent_s: float) -> None:
        self._console = console
        self._budget_s = budget_s
        self._spent_s = self._told_s = spent_s

    def update(self, **news: Unpack[SearchNews]) -> None:
        self._spent_s = news.get("spent_s", self._spent_s)
        if (stage := news.get("stage")) and self._spent_s - self._told_s >= SILENCE_S:
            self.trial_line(stage)

    def trial_line(self, text: str) -> None:
        self._told_s = self._spent_s
        self._console.info(f"[{format_duration(self._spent_s)} of {format_duration(self._budget_s)}] {text}")


class _BarProgress:
    """A bar over the budget with the news under it, redrawn four times a second."""

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
        # stdout carries data and may go to a file, so rich must not touch it.
        self.live = Live(Group(self._bar, self._news), console=self._console, redirect_stdout=False, transient=True)
        self.update(spent_s=spent_s)

    def update(self, **news: Unpack[SearchNews]) -> None:
        if (spent_s := news.pop("spent_s", None)) is not None:
            self._bar.update(self._task, completed=spent_s, clock=f"{format_duration(round(spent_s))} of {self._budget}")
        self._facts |= news
        self._news.plain = progress_line(**self._facts)

    def trial_line(self, text: str) -> None:
        self._console.print(printable(text), markup=False)


def progress_line(done: int, stopped: int, failed: int, front: int, best: str | None, stage: str | None) -> str:
    """Return the lines under the bar: counts and the best point, and what is being done. A narrow terminal cuts their ends."""
    parts = [f"{done} done, {stopped} stopped, {failed} failed", f"front {front}"]
    parts += [f"best {best}"] if best else []
    return "\n".join([" | ".join(parts), *([stage] if stage else [])])


class _Busy:
    """Tells in a thread of its own what is being done, until `is_over`."""

    def __init__(self, console: Console, doing: str) -> None:
        self.is_over = threading.Event()
        self._console = console
        self._doing = doing
        self._started = time.monotonic()

    def now_doing(self, doing: str) -> None:
        self._doing = doing

    def tell_in_file(self) -> None:
        while not self.is_over.wait(SILENCE_S + 1):
            self._console.info(self._phrase())

    def tell_on_terminal(self) -> None:
        from rich.console import Console as RichConsole
        from rich.live import Live
        from rich.text import Text

        text = Text(no_wrap=True, overflow="ellipsis")
        console = RichConsole(file=self._console._stderr or sys.stderr, highlight=False, emoji=False)
        # Whatever else is printed meanwhile goes where it would go anyway.
        with Live(text, console=console, redirect_stdout=False, redirect_stderr=False, transient=True, auto_refresh=False) as live:
            while True:
                text.plain = self._phrase()
                live.refresh()
                if self.is_over.wait(1.0):
                    return

    def _phrase(self) -> str:
        return f"{self._doing}: {format_duration(time.monotonic() - self._started)} so far"


def _width_of(stream: TextIO) -> int | None:
    """Return the columns of the terminal that `stream` is; None where it is none."""
    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns if _is_terminal(stream) else None


def _wrapped(text: str, stream: TextIO) -> str:
    """Wrap each line to the terminal that `stream` is, its rest indented; no word is broken. A file gets the lines as they are."""
    if (width := _width_of(stream)) is None:
        return text
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines += textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(lines)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def cell_text(value: object) -> str:
    """Return a value as it stands in a table: four digits of a number, a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _is_numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell == "-" or cell[:2].lstrip("+-$").isdigit()


def _plain(value: Any) -> Any:
    """Replace, at every level, the values that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
