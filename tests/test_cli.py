"""All verbs together: help, streams, wrong use and exit codes. The rooms below them are fakes (`tests.fakes`)."""

from __future__ import annotations

import errno
import shlex
import signal
import subprocess
import sys

import pytest

from autocut import cli
from autocut.commands.verb import Verb
from autocut.errors import BundleError, CompilerError, Fault, FaultsError, NoResultError, StudyError
from autocut.score import ALIASES, METRICS


def test_help_lists_every_verb_and_is_data(capsys):
    """`autocut --help | less` works, with exit code 0."""
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert all(
        verb in shown.out for verb in ("search", "check", "methods", "front", "select", "export", "verify", "ledger", "dashboard")
    )
    assert shown.err == ""
    assert cli.main([]) == 2


@pytest.mark.parametrize("verb", ["search", "select"])
def test_help_names_every_value_that_a_limit_may_be_on(verb, capsys):
    """With its alias: nobody guesses that `latency` is accepted."""
    assert cli.main([verb, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    names = told.partition("Names: ")[2].partition(". Repeatable")[0]

    others = {name: f"{name} (or {alias})" for alias, name in ALIASES.items()}
    assert names.split(", ") == [others.get(name, name) for name in METRICS]


def test_help_imports_nothing_heavy():
    """`autocut --help` is instant: only click and autocut's own light modules."""
    heavy = ("torch", "numpy", "optuna", "ray", "pydantic", "rich", "pandas", "sqlalchemy")
    code = "import sys; from autocut.cli import main; main(['search', '--help']); "
    code += f"sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("verb", sorted(cli.cli.commands))
def test_help_examples_are_accepted_by_the_parser(verb, searches, monkeypatch, capsys):
    """Every example in a verb's help has only flags that exist, with values that they take."""
    command = cli.cli.commands[verb]
    assert isinstance(command, Verb)
    assert cli.main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    for example in command.examples:
        assert example in shown
        words = shlex.split(example)
        assert words[:2] == ["autocut", verb]
        with command.make_context(verb, words[2:], parent=cli.cli.make_context("autocut", [verb])) as ctx:
            assert ctx.params is not None


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("search --budget 8", "--budget must have a unit, got '8'", "write 8h, 8m or 8s"),
        ("search", "--budget is missing", "as in: autocut search --budget 5m"),
        ("search --budgt 8h", "autocut search has no flag '--budgt'", "did you mean '--budget'?"),
        ("serch --budget 8h", "verb must be one of", "did you mean 'search'?"),
        ("search --budget 8h --workers 0", "--workers must be an integer of at least 1, got '0'", "write 1"),
        ("search --budget 8h --utilization 40%", "--utilization must be a number above 0 and at most 1, got '40%'", "write 0.4"),
        ("search --budget 8h --utilization 40", "--utilization must be a number above 0 and at most 1, got '40.0'", "write 0.4"),
        ("search --budget 8h --requests-per-month 3M", "--requests-per-month must be a number above 0, got '3M'", "write 3e6"),
        ("search --budget 8h --price-per-hour cheap", "--price-per-hour must be a number above 0, got 'cheap'", "such as 0.5"),
        ("search --budget 8h --price-per-hour nan", "--price-per-hour must be a number above 0, got 'nan'", "such as 0.5"),
        ("search --budget 8h --grid-intensity inf", "--grid-intensity must be a number of at least 0, got 'inf'", "such as 0.5"),
        ("select studies/x --max-latency-ms nan", "--max-latency-ms must be a number above 0, got 'nan'", "such as 0.5"),
        ("search --budget 8h --seed 4294967296", "--seed must be an integer of at least 0 and at most 2147483647", "write 0"),
        ("search --budget 8h --limit latency_ms<=-5", "limit on latency_ms must have a bound above 0", "'latency_ms<=5'"),
        ("search --budget 8h --limit speedup>=0", "got 'speedup>=0': every model keeps this one", "'speedup>=1'"),
        ("search --budget 8h --train-on gpu", "--train-on must be one of cpu, cuda, auto, got 'gpu'", "did you mean 'cuda'?"),
        ("search --budget 8h --train-on tpuv4", "--train-on must be one of cpu, cuda, auto, got 'tpuv4'", "write cpu"),
        ("search --budget 8h --train-on cud", "--train-on must be one of cpu, cuda, auto, got 'cud'", "did you mean 'cuda'?"),
        ("search --budget 8h --try nowhere.toml", "--try must be a file, got none at 'nowhere.toml'", "ls ."),
        ("search --budget 8h --out /etc/passwd", "--out must be a folder, got the file '/etc/passwd'", "ls /etc"),
        ("search a.py b.py --budget 8h", "autocut search must get no further word, got 'b.py'", "as in: autocut search"),
        ("search --budget 8h --space quik", "space must be one of", "did you mean 'quick'?"),
        ("search --budget 8h --sampler tp", "--sampler must be one of", "did you mean 'tpe'?"),
        ("search --budget 8h --instance c7i.larg", "c7i.larg", "did you mean 'c7i.large'?"),
        ("search --budget 8h --limit latncy<=5", "limit must be one of", "did you mean"),
        ("search --budget 8h --limit foo<=5", "limit must be one of", "write one of them, such as 'accuracy'"),
        ("search --budget 8h --instance nowhere", "--instance must be one of", "write one of them, such as"),
        ("select studies/x --minimize foo", "minimize must be one of", "write one of them, such as"),
        ("schema nope", "document must be one of", "write one of them, such as 'check'"),
        ("search --budget 8h --config nowhere.toml", "configuration file must be readable", ""),
        ("search --budget 8h --max-accuracy-drop 2", "--max-accuracy-drop must have a percent sign, got '2'", "write 2%"),
        ("select studies/x --max-accuracy-drop 1", "--max-accuracy-drop must have a percent sign, got '1'", "write 1%"),
        ("front", "STUDY is missing", "as in: autocut front studies/digits"),
        ("front studies/x --json --csv", "output must be either --json or --csv, got both", "leave one out"),
        ("export studies/x --trial x --to out", "--trial must be an integer of at least 0, got 'x'", "write 0"),
        ("explain studies/x x", "TRIAL must be an integer of at least 0, got 'x'\n", "write 0"),
    ],
)
def test_wrong_use_exits_with_two_and_says_what_to_type(searches, capsys, words, message, hint):
    """error, hint, nothing on stdout (but the error's document, where one is asked for), and no search."""
    assert cli.main(words.split()) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert hint in shown.err
    assert "Traceback" not in shown.err
    assert (shown.out == "") is ("--json" not in words)
    assert searches == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("limit = 'latency_ms<=-5'", "limit on latency_ms must have a bound above 0"),
        ("price-per-hour = nan", "price-per-hour in autocut.toml must be a number above 0, got 'nan'"),
        ("price-per-hour = true", "price-per-hour in autocut.toml must be a number above 0, got 'true'"),
        ("threads = true", "threads in autocut.toml must be an integer of at least 1, got 'true'"),
        ("budget = true", "budget in autocut.toml must be a duration, got 'true'"),
    ],
)
def test_what_no_flag_takes_no_file_takes(tmp_path, monkeypatch, searches, capsys, line, message):
    """A file has numbers and truth values of its own; the same rules hold for them."""
    (tmp_path / "autocut.toml").write_text(f"[search]\n{line}\n")
    monkeypatch.chdir(tmp_path)
    words = ["search"] if line.startswith("budget") else ["search", "--budget", "8h"]

    assert cli.main(words) == 2
    assert message in capsys.readouterr().err
    assert searches == []


@pytest.mark.parametrize(("name", "value"), [("LIMIT", "speedup>=-1"), ("PRICE_PER_HOUR", "inf"), ("SEED", "-1")])
def test_what_no_flag_takes_no_variable_takes(monkeypatch, searches, capsys, name, value):
    """The third way to the same numbers."""
    monkeypatch.setenv(f"AUTOCUT_SEARCH_{name}", value)

    assert cli.main(["search", "--budget", "8h"]) == 2
    assert value in capsys.readouterr().err
    assert searches == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StudyError("study must be a folder that autocut search made", "ls studies"), 2),
        (BundleError("bundle is empty"), 2),
        (NoResultError("no point meets the limits"), 1),
        (CompilerError("the compiler refused"), 3),
        (FaultsError("task.py", [Fault("a"), Fault("b")]), 2),
        (OSError(errno.ENOSPC, "No space left on device", "study.db"), 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "afile/x/stages"), 2),
        (FileExistsError(errno.EEXIST, "File exists", "afile/x"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_end_with_their_exit_code_and_without_traceback(searches, room, capsys, error, code):
    """Every error that a room raises on purpose has its exit code."""

    def fail(*arguments):
        raise error

    room("autocut.execution.session", run_search=fail)
    assert cli.main(["search", "--budget", "5m"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_unexpected_exception_is_called_a_bug(searches, room, capsys):
    """The message has the traceback, and the exit code is 3."""
    room("autocut.execution.session", run_search=lambda *_: 1 / 0)
    assert cli.main(["search", "--budget", "5m"]) == 3
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "this is a bug in autocut: ZeroDivisionError" in told


def test_ctrl_c_prints_the_command_that_resumes(searches, room, capsys):
    """The command is quoted for the shell."""

    def interrupt(*arguments):
        raise KeyboardInterrupt

    room("autocut.execution.session", run_search=interrupt)
    assert cli.main(["search", "my task.py", "--budget", "5m"]) == 130
    assert "autocut search 'my task.py' --budget 5m" in capsys.readouterr().err


def test_sigterm_ends_a_search_like_ctrl_c(searches, room, capsys):
    """A scheduler that stops the machine sends it; what is finished is kept, and 143 tells which signal it was."""
    before = signal.getsignal(signal.SIGTERM)

    def terminate(*arguments):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)  # the second one does not stop the end of the search

    room("autocut.execution.session", run_search=terminate)
    assert cli.main(["search", "task.py", "--budget", "5m"]) == 143
    assert capsys.readouterr().err.endswith("finished work is kept. Resume with:\n  autocut search task.py --budget 5m\n")
    assert signal.getsignal(signal.SIGTERM) is before
