"""`autocut search`: flags, variables, files, and what is told before anything starts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from autocut import cli
from autocut.errors import Fault
from autocut.execution import money
from autocut.measure.audit import AuditedMachine
from autocut.price import Host
from tests.fakes import FakePool


def test_search_hands_over_its_configuration_and_prints_the_front(searches, capsys):
    """Units are parsed, the space is loaded, the study folder is named after the task."""
    words = (
        "search task.py --budget 1h30m --space deploy-only --workers 3 --limit latency_ms<=5 --cache-size 2GB --price-per-hour 0.5"
    )
    assert cli.main(shlex.split(words.replace("<=", "'<='"))) == 0
    config, space = searches[0]

    assert (config.task, config.budget_s, config.workers, config.cache_bytes) == ("task.py", 5400, 3, 2 * 10**9)
    assert (config.limits, config.price_per_hour, config.out) == (("latency_ms<=5",), 0.5, Path("studies/digits"))
    assert space.name == "deploy-only"
    assert "int8_static" in capsys.readouterr().out


def test_flag_beats_variable_beats_file_beats_default(searches, monkeypatch):
    """The order: flag > AUTOCUT_* > file > default."""
    Path("autocut.toml").write_text('[search]\nbudget = "1m"\nseed = 1\nthreads = 4\nspace = "quick"\n')
    monkeypatch.setenv("AUTOCUT_SEARCH_SEED", "2")
    monkeypatch.setenv("AUTOCUT_SEARCH_BUDGET", "2m")
    assert cli.main(["search", "--budget", "3m"]) == 0

    config, space = searches[0]
    assert (config.budget_s, config.seed, config.threads, config.workers >= 1) == (180, 2, 4, True)
    assert space.name == "quick"


def test_workers_fill_the_processors_with_their_threads(searches):
    """Eight processors: two workers of three threads, which leaves two processors idle."""
    assert cli.main(["search", "--budget", "3m", "--threads", "3"]) == 0
    assert searches[0][0].workers == 2


@pytest.mark.parametrize(
    ("asked", "hint"),
    [(("--threads", "3", "--workers", "3"), "write --workers 2"), (("--threads", "9"), "write --threads 8 --workers 1")],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_more_threads_than_processors_are_refused(searches, capsys, asked, hint, more):
    """They would take turns on the processors, and every number would be that of an overloaded machine."""
    assert cli.main(["search", "--budget", "3m", *asked, *more]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--threads times --workers must be at most the 8 processors here, got" in told
    assert hint in told
    assert searches == []


def test_what_may_spoil_timings_is_said_once_and_ends_nothing(searches, monkeypatch, capsys):
    """The search goes on: a person decides whether to stop it."""
    monkeypatch.setattr(AuditedMachine, "governors", lambda self: ["powersave"])
    assert cli.main(["search", "--budget", "3m"]) == 0
    assert capsys.readouterr().err.count("frequency governor is powersave") == 1


def test_the_largest_drop_comes_from_flag_variable_or_file(searches, monkeypatch):
    """Without any of them the search decides: five points for a new study."""
    assert cli.main(["search", "--budget", "3m"]) == 0
    Path("autocut.toml").write_text('[search]\nmax-accuracy-drop = "3%"\n')
    assert cli.main(["search", "--budget", "3m"]) == 0
    monkeypatch.setenv("AUTOCUT_SEARCH_MAX_ACCURACY_DROP", "2%")
    assert cli.main(["search", "--budget", "3m"]) == 0
    assert cli.main(["search", "--budget", "3m", "--max-accuracy-drop", "0%"]) == 0

    assert [config.max_accuracy_drop for config, _ in searches] == [None, 0.03, 0.02, 0.0]


def test_dry_run_shows_each_value_with_its_source_and_runs_nothing(searches, monkeypatch, capsys):
    """The output shows what would run, and the origin of each value."""
    Path("mine.toml").write_text("[search]\nthreads = 4\n")
    monkeypatch.setenv("AUTOCUT_SEARCH_SEED", "2")
    assert cli.main(["search", "--config", "mine.toml", "--budget", "90m", "--dry-run", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["configuration"]

    assert settings["budget"] == {"value": 5400.0, "source": "flag"}
    assert settings["seed"] == {"value": 2, "source": "AUTOCUT_SEARCH_SEED"}
    assert settings["threads"] == {"value": 4, "source": "mine.toml"}
    assert settings["utilization"] == {"value": 1.0, "source": "default"}
    assert searches == []


def test_dry_run_says_whose_price_it_is(searches, monkeypatch, capsys):
    """Before hours are spent, the user reads that the price is of another machine."""
    monkeypatch.setattr(money, "this_host", lambda: Host("Apple M3", "", "aarch64", 8))

    assert cli.main(["search", "--budget", "5m", "--dry-run"]) == 0
    assert "this machine is Apple M3, 8 cores (--price-per-hour takes the price of this machine)" in capsys.readouterr().err
    assert cli.main(["search", "--budget", "5m", "--price-per-hour", "0.1", "--dry-run"]) == 0
    assert "dollars may not" not in capsys.readouterr().err


def test_requests_and_grid_are_checked_before_anything_starts(searches, capsys):
    """An impossible number ends with exit code 2 and says what to type."""
    assert cli.main(["search", "--budget", "5m", "--requests-per-month", "nan"]) == 2
    assert "--requests-per-month" in capsys.readouterr().err
    assert cli.main(["search", "--budget", "5m", "--grid-intensity", "inf"]) == 2
    assert "--grid-intensity must be a number of at least 0, got 'inf'" in capsys.readouterr().err
    assert searches == []


def test_dry_run_reports_the_faults_of_space_and_task_together(searches, room, capsys):
    """One run reports every fault."""
    Path("bad.toml").write_text('schema_version = 1\n[objectives]\nacc = "maximize"\n[axes."compile.mode"]\nchoices = ["eagre"]\n')
    room("autocut.task.check", check_task=lambda path, **more: [Fault("loss must be finite, got nan", "lower the learning rate")])
    assert cli.main(["search", "--budget", "5m", "--space", "bad.toml", "--dry-run"]) == 2

    told = capsys.readouterr().err
    assert "configuration has 3 faults" in told
    assert "bad.toml, line 3" in told
    assert "did you mean 'eager'?" in told
    assert "3. loss must be finite" in told


@pytest.mark.parametrize(
    "words",
    [
        "--space quik",
        "--space nowhere.toml",
        "--space gpu",
        "--limit latncy<=5",
        "--instance c7i.larg",
        "--worker-memory 10MB",
        "--stages s3://b/x",
    ],
)
def test_what_needs_no_task_is_told_before_anything_starts(searches, room, words):
    """A slip of the keyboard costs no waiting for processes and imports."""
    room("autocut.execution.worker_pool", WorkerPool=lambda *_, **__: pytest.fail("something was started"))
    assert cli.main(["search", "--budget", "8h", *words.split()]) == 2


def test_an_unknown_sampler_is_told_before_ray_starts(searches, monkeypatch):
    """Its names need Optuna, not Ray."""
    monkeypatch.setattr(FakePool, "start_ray", lambda self: pytest.fail("Ray was started"))
    assert cli.main(["search", "--budget", "8h", "--sampler", "tp"]) == 2


def test_mistyped_variable_is_refused(searches, monkeypatch, capsys):
    """Ignored, it would be a silent fallback."""
    monkeypatch.setenv("AUTOCUT_SEARCH_BUDGTE", "8h")
    assert cli.main(["search", "--budget", "3m"]) == 2
    assert "did you mean 'AUTOCUT_SEARCH_BUDGET'?" in capsys.readouterr().err


def test_bad_value_is_named_by_where_it_stands(searches, monkeypatch, capsys):
    """The user looks for it in the file or in the environment, not on the command line."""
    Path("autocut.toml").write_text("[search]\nbudget = 8\n")
    assert cli.main(["search"]) == 2
    assert "budget in autocut.toml must have a unit" in capsys.readouterr().err
    monkeypatch.setenv("AUTOCUT_SEARCH_BUDGET", "9")
    assert cli.main(["search"]) == 2
    assert "AUTOCUT_SEARCH_BUDGET must have a unit" in capsys.readouterr().err


def test_bundles_carry_examples_unless_the_user_says_otherwise(searches, monkeypatch):
    """By flag, variable or file, as every setting."""
    assert cli.main(["search", "--budget", "5m"]) == 0
    assert cli.main(["search", "--budget", "5m", "--no-examples"]) == 0
    monkeypatch.setenv("AUTOCUT_SEARCH_EXAMPLES", "false")
    assert cli.main(["search", "--budget", "5m"]) == 0

    assert [config.examples for config, _ in searches] == [True, False, False]
