"""What the console writes, and to which stream."""

from __future__ import annotations

import io
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.console import Console, progress_line, table_lines
from autocut.errors import Fault, FaultsError, InputError
from tests.fakes import Terminal


@pytest.fixture
def streams():
    """Two files, as in a shell pipeline."""
    return io.StringIO(), io.StringIO()


@pytest.fixture
def console(streams):
    """A console over the two files."""
    return Console(*streams)


@pytest.mark.parametrize("nasty", ["\x1b[2J", "\r", "\x85", "\u202e", "\x00", "\udcff"])
def test_no_control_character_reaches_a_terminal(nasty):
    """A message may quote a stranger's file, and a table may show it."""
    out, err = Terminal(), Terminal()
    console = Console(out, err)
    console.error(FaultsError(f"file {nasty}", [Fault(nasty, nasty, nasty)]))
    console.warning(nasty, nasty)
    console.info(nasty)
    console.data(nasty)
    console.table(["name", "words"], [(nasty, nasty)])

    told = (out.getvalue() + err.getvalue()).replace("\x1b[1;31m", "").replace("\x1b[1;33m", "").replace("\x1b[1;36m", "")
    assert nasty not in told.replace("\x1b[0m", "")
    assert told.count(nasty.encode("unicode_escape").decode()) == 10


def test_data_for_a_file_is_exact(console, streams):
    """A program may read a path with any character."""
    console.data("a\x1bb")

    assert streams[0].getvalue() == "a\x1bb\n"


def test_data_and_messages_use_different_streams(console, streams):
    """`autocut front | jq` must see data alone."""
    console.data("data")
    console.info("news")
    console.plan(["8 seconds per stage"])
    console.warning("little memory", "close the browser")

    assert streams[0].getvalue() == "data\n"
    assert streams[1].getvalue() == "news\nplan:\n  8 seconds per stage\nwarning: little memory\nhint: close the browser\n"


def test_error_has_the_shape_of_the_style_guide(console, streams):
    """error, then hint, and no colour in a file."""
    console.error(InputError("--workers must be 1 or more, got 0", "write --workers 2"))
    assert streams[1].getvalue() == "error: --workers must be 1 or more, got 0\nhint: write --workers 2\n"


def test_faults_are_numbered_with_place_and_hint(console, streams):
    """The user can correct all faults at once."""
    console.error(FaultsError("space file 'x.toml'", [Fault("a is wrong", "write b", "x.toml, line 3"), Fault("c is wrong")]))
    assert streams[1].getvalue().splitlines() == [
        "error: space file 'x.toml' has 2 faults",
        "  1. a is wrong (x.toml, line 3)",
        "     hint: write b",
        "  2. c is wrong",
    ]


def test_of_very_many_faults_the_first_are_told(console, streams):
    """A file with hundreds of unknown names scrolled its first fault away (found by `studies/fuzz`)."""
    console.error(FaultsError("recipe file", [Fault(f"fault {number}") for number in range(60)]))
    lines = streams[1].getvalue().splitlines()

    assert lines[0] == "error: recipe file has 60 faults"
    assert (lines[1], lines[25], lines[26:]) == ("  1. fault 0", "  25. fault 24", ["  and 35 more"])


def test_colour_is_for_terminals_and_no_color_switches_it_off(monkeypatch):
    """As https://no-color.org asks."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    Console(io.StringIO(), terminal).error(InputError("bad"))
    assert "\x1b[" in terminal.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    Console(io.StringIO(), terminal).error(InputError("bad"))
    assert "\x1b[" not in terminal.getvalue()


def test_document_is_strict_json(console, streams):
    """NaN is no JSON; a reader in another language would stop there."""
    console.document({"schema_version": 1, "values": {"latency_ms": float("nan")}, "ties": (1, 2), "high": float("inf")})
    assert json.loads(streams[0].getvalue()) == {"schema_version": 1, "values": {"latency_ms": None}, "ties": [1, 2], "high": None}


RECIPE = "structured 0.5 + 8 epochs + curriculum exponential easy_first + distill kl T=4.0 + int8_static + onnxruntime"
ROWS = [(3, 0.98765432, RECIPE), (12, None, "untouched")]


def test_table_wraps_its_last_column_within_the_width():
    """A long recipe stays readable in a narrow terminal."""
    lines = table_lines(["trial", "accuracy", "recipe"], ROWS, 80)

    assert max(map(len, lines)) <= 80
    assert lines[2].startswith("    3    0.9877  structured")
    assert " ".join(line[17:] for line in lines[2:-1]) == RECIPE


def test_table_is_a_line_a_row_where_stdout_is_no_terminal(console, streams):
    """`autocut front studies/digits | grep int8` finds whole recipes."""
    console.table(["trial", "accuracy", "recipe"], [*ROWS, (13, 0.5, "failed:\nits second line")])
    lines = streams[0].getvalue().splitlines()
    assert lines[2] == f"    3    0.9877  {RECIPE}"
    assert lines[4:] == ["   13       0.5  failed: its second line"]


def test_a_table_of_several_wide_columns_fits_too():
    """Two recipes side by side took more than 200 columns. No word is lost, and none is broken."""
    lines = table_lines(
        ["", "A: out/", "B: studies/digits"], [("recipe", RECIPE, RECIPE), ("p50 latency, batch 1", "0.1 ms", "1 ms")], 80
    )

    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    assert all(words.count(word) == 2 * RECIPE.split().count(word) for word in RECIPE.split())


def test_sentences_are_wrapped_on_a_terminal_and_stay_whole_in_a_file(console, streams, monkeypatch):
    """The rest of a line is indented, so that one sees where the next one begins; an address is never broken."""
    told = f"a first line\n  {RECIPE} {'x' * 50}"
    console.prose(told)
    console.remark(told)
    assert [stream.getvalue() for stream in streams] == [f"{told}\n"] * 2

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    Console(terminal, terminal).prose(told)
    lines = terminal.getvalue().splitlines()
    assert (lines[0], lines[-1]) == ("a first line", f"    {'x' * 50}")
    assert max(map(len, lines[:-1])) <= 40
    assert " ".join(" ".join(lines).split()) == " ".join(told.split())


@given(st.lists(st.tuples(st.integers(0, 9999), st.text("ab -", max_size=200)), max_size=5), st.integers(40, 120))
def test_table_never_leaves_its_width(rows, width):
    """Any words fit: they are wrapped or broken."""
    lines = table_lines(["trial", "words"], rows, width)
    assert max(map(len, lines)) <= width


def test_progress_is_a_plain_line_per_trial_in_a_file(console, streams):
    """A log of a nightly job has no control characters."""
    with console.search_progress(1800, 60) as progress:
        progress.update(spent_s=80, done=1, stopped=0, failed=0, front=1, best="2.1x", stage="training")
        progress.trial_line("trial 4: 97.2%, 1.2 ms")
    assert streams[1].getvalue() == "[1m20s of 30m] trial 4: 97.2%, 1.2 ms\n"
    assert streams[0].getvalue() == ""


def test_a_file_hears_every_thirty_seconds_what_is_being_done_unless_something_else_was_told(console, streams):
    """A log that stands still looks like a program that hangs."""
    with console.search_progress(1800, 60) as progress:
        for second in range(61, 151):
            progress.update(spent_s=second, stage=f"training at {second}")
            if second == 100:
                progress.trial_line("trial 4")
    assert streams[1].getvalue().splitlines() == [
        "[1m29s of 30m] training at 89",
        "[1m40s of 30m] trial 4",
        "[2m9s of 30m] training at 129",
    ]


def test_what_takes_long_before_a_search_is_told_after_a_silence(console, streams, monkeypatch):
    """The check of a large model takes a minute. One that takes a second says nothing."""
    with console.busy("checking") as now_doing:
        now_doing("starting Ray")
    assert streams[1].getvalue() == ""

    monkeypatch.setattr("autocut.console.SILENCE_S", -1.0)
    told = threading.Event()
    monkeypatch.setattr(Console, "info", lambda self, text: (streams[1].write(text), told.set()))
    with console.busy("checking"):
        told.wait(30)
    assert streams[1].getvalue().startswith("checking: 0s so far")


def test_a_terminal_shows_at_once_what_takes_long(monkeypatch):
    """It is gone when the block ends, and stdout stays empty."""
    monkeypatch.setenv("TERM", "xterm")
    data, terminal = io.StringIO(), Terminal()
    with Console(data, terminal).busy("checking the task"):
        pass
    assert "checking the task: 0s so far" in terminal.getvalue()
    assert data.getvalue() == ""


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    """The bar is drawn over the budget, trial lines stand above it, stdout stays empty."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    data, terminal = io.StringIO(), Terminal()
    with Console(data, terminal).search_progress(1800) as progress:
        progress.update(spent_s=900, done=5, stopped=2, failed=1, front=3, best="3.0x cheaper at 97.1%", stage="training")
        progress.trial_line("trial 4: [97.2%]")
    shown = terminal.getvalue()

    assert "15m of 30m" in shown
    assert "5 done, 2 stopped, 1 failed | front 3 | best 3.0x cheaper at 97.1%" in shown
    assert "training" in shown
    assert "trial 4: [97.2%]" in shown
    assert data.getvalue() == ""


def test_progress_line_leaves_out_what_is_not_known_yet():
    """Before the first trial there is no best one."""
    assert progress_line(0, 0, 0, 0, None, None) == "0 done, 0 stopped, 0 failed | front 0"
