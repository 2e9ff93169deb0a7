"""Options as flags, errors as exceptions, and a command in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from autocut.api import command
from autocut.api.calls import SearchOptions
from autocut.commands.search import search as search_verb
from autocut.commands.verb import flag
from autocut.errors import AutocutError, Fault, FaultsError, InputError, StudyError
from autocut.schemas.document import error_document


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": Path("a b"), "seed": 3}, ["--out=a b", "--seed=3"]),
        ({"max_accuracy_drop": 0.01}, ["--max-accuracy-drop=1%"]),
        ({"max_accuracy_drop": "2%", "cache_size": 10**9}, ["--max-accuracy-drop=2%", "--cache-size=1000000000B"]),
        ({"limit": ["latency_ms<=5", "size_bytes<=9"]}, ["--limit=latency_ms<=5", "--limit=size_bytes<=9"]),
        ({"examples": False}, ["--no-examples"]),
        ({"examples": True, "instance": None}, ["--examples"]),
    ],
)
def test_options_become_flags(options, words):
    """Numbers get the unit of their flag; None leaves a flag out."""
    assert command.flags(options) == words


@pytest.mark.parametrize("drop", [5, -0.01, float("nan")])
def test_a_percentage_where_a_share_is_meant_is_refused(drop):
    """5 would be 500%, and the message of the command line would name a value that nobody gave."""
    with pytest.raises(InputError, match="max_accuracy_drop must be a share from 0 to 1, got") as error:
        command.flags({"max_accuracy_drop": drop})
    assert error.value.hint == f"max_accuracy_drop={0.05 if drop == 5 else 0.01} is {5 if drop == 5 else 1}%"
    with pytest.raises(InputError, match="utilization must be a share from 0 to 1, got 50"):
        command.flags({"utilization": 50})


@pytest.mark.parametrize(
    "error",
    [
        StudyError("study must be a folder, got 'x'", "ls"),
        InputError("--seed is missing"),
        FaultsError("task.py", [Fault("a", "b", "c"), Fault("d")]),
        AutocutError("this is a bug"),
    ],
)
def test_an_error_is_the_same_after_its_way_through_a_document(error):
    """Class, message, hint and faults."""
    back = command.as_error(error_document(error).plain()["error"])

    assert (type(back), back.args, back.hint) == (type(error), error.args, error.hint)
    assert getattr(back, "faults", None) == getattr(error, "faults", None)


def test_python_shows_the_hints_of_an_error_that_nobody_catches():
    """They say what to type, and would be lost in a traceback."""
    assert command.noted(StudyError("study is wrong", "ls")).__notes__ == ["hint: ls"]
    faulty = command.noted(FaultsError("task.py", [Fault("a", "b", "c"), Fault("d")]))
    assert faulty.__notes__ == ["a (c)\n  hint: b", "d"]


def test_a_failing_command_raises_its_error(tmp_path, capfd):
    """With the hint of the command line, and on stderr not a second time."""
    with pytest.raises(StudyError, match="must be a folder that autocut search made"):
        command.run(["front", str(tmp_path)])
    assert capfd.readouterr() == ("", "")
    with pytest.raises(InputError, match="has no flag") as error:
        command.run(["search", "--budgt=8h"], quiet=True)
    assert error.value.hint == "did you mean '--budget'?"
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def interruptible():
    """A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_reaches_the_command(monkeypatch):
    """And the caller waits for its end: it may be closing a study."""
    code = "import sys, time; print('up', file=sys.stderr, flush=True); time.sleep(60)"

    class Interrupted(subprocess.Popen):
        def __init__(self, words, **settings):
            super().__init__([sys.executable, "-c", code], **settings)
            processes.append(self)

        def communicate(self, *arguments, **settings):
            assert self.stderr.readline() == "up\n"
            raise KeyboardInterrupt

    processes = []
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.run(["search"], quiet=True)

    assert processes[0].poll() == -signal.SIGINT
    processes[0].stdout.close()
    processes[0].stderr.close()


def test_the_public_names_import_nothing_heavy():
    """A notebook that only reads a study needs no torch, and `import autocut` is instant."""
    heavy = ("torch", "numpy", "optuna", "ray", "pydantic", "pandas", "click")
    code = "import sys, autocut; [getattr(autocut, name) for name in autocut.__all__ if name not in ('Task', 'load')]; "
    code += f"sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr.strip() == "[]"


SCRIPT = """

    if __name__ == "__main__":
        import autocut

        study = autocut.search(task, budget=40, space="quick", out="study", workers=1, quiet=True, examples=False)
        chosen = study.select(max_accuracy_drop=0.5)
        print(study.name, chosen.point.trial in [point.trial for point in [*study.front(), study.baseline()]])
        print(study.ledger()["sessions"][0]["command"].startswith("autocut search"))
"""


@pytest.mark.slow
def test_a_script_searches_its_own_task(small_task_file):
    """A whole search through the Python API, from a `Task` object of the script that calls it."""
    small_task_file.write_text(small_task_file.read_text() + textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, small_task_file.name], cwd=small_task_file.parent, capture_output=True, text=True, check=False
    )

    assert done.stdout.splitlines() == ["small True", "True"], done.stderr


def test_every_flag_of_a_search_is_an_option():
    """A type checker knows them all, so a new flag is not forgotten. `try` is no name in Python."""
    flags = {flag(param).replace("-", "_") for param in search_verb.params}

    assert flags - {"task", "budget", "json", "dry_run", "config", "try"} == set(SearchOptions.__annotations__)
