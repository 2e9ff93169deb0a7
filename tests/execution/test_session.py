"""A whole search, as a user runs it: in a process of its own, with real workers. Slow: minutes each."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OWN_LINE = re.compile(
    r"plan:$|  \S|\[.+ of 1m10s\] |left out: |\d+ verified bundles|[Tt]rial \d+|next: |starting: |no verified bundle"
    r"|brought nothing for sure|ratios hold, dollars may not|\d+ trials, the worst|no new trial was finished"
    r"|(quality|balanced|compact) +\S|\d+ looks? at the locked test split|$"
    r"|warning: (other programs use|this container may use|the frequency governor is|\d+ processors? are|\d+% of the memory|a GPU)"
)
"""What a search writes to stderr; the warnings are of the machine that the test runs on (`measure.audit`)."""


def command(folder, budget, *more):
    """The command line of a search."""
    words = ["search", str(folder / "task.py"), "--budget", budget, "--space", "quick", "--out", str(folder / "study"), *more]
    return [sys.executable, "-m", "autocut", *words]


def search(folder, budget, *more):
    """Run a search to its end."""
    return subprocess.run(command(folder, budget, *more), capture_output=True, text=True, cwd=folder, check=False)


def finished_stages(study):
    """(key, cached) of every stage run that the study knows."""
    with sqlite3.connect(study / "study.db") as database:
        return database.execute("select key, cached from autocut_stage_run").fetchall()


def test_a_search_keeps_its_budget_and_leaves_a_verified_front(small_task_file):
    """Exit code 0, one JSON document on stdout, every bundle on the front verifies in a fresh process."""
    folder = small_task_file.parent
    started = time.monotonic()
    done = search(folder, "100s", "--json")
    elapsed = time.monotonic() - started

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    bundles = [point["bundle"] for point in document["points"] if point["bundle"]]
    assert document["schema_version"] == 1
    assert bundles
    assert "Traceback" not in done.stderr
    assert elapsed < 100 + 15  # the process's own start and end included; the search's clock is in the ledger
    for bundle in bundles:
        path = Path(bundle) if Path(bundle).is_absolute() else folder / "study" / bundle
        verified = subprocess.run(
            [sys.executable, "-m", "autocut", "verify", str(path)], capture_output=True, text=True, check=False
        )
        assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_ledger_adds_up_and_no_library_speaks_to_the_user(small_task_file):
    """Its rows sum to the seconds spent; stderr has the search's own lines alone."""
    folder = small_task_file.parent
    done = search(folder, "70s")
    told = subprocess.run(
        [sys.executable, "-m", "autocut", "ledger", str(folder / "study"), "--json"], capture_output=True, text=True, check=True
    )
    ledger = json.loads(told.stdout)

    assert sum(ledger["by_category"].values()) == pytest.approx(ledger["spent_s"], rel=0.02)
    assert min(ledger["by_category"][row] for row in ("starting", "training", "measuring", "overhead")) > 0
    assert 0 < ledger["cores_busy"] < 1
    assert not [line for line in done.stderr.splitlines() if not OWN_LINE.match(line)], done.stderr


def test_sigterm_ends_a_search_like_ctrl_c(small_task_file):
    """Exit code 143 and the command that resumes; nothing runs on, and Ray prints no dump."""
    folder = small_task_file.parent
    with subprocess.Popen(command(folder, "150s"), cwd=folder, stderr=subprocess.PIPE, text=True) as running:
        for line in running.stderr:
            if "trial 1" in line:
                break
        running.terminate()
        rest = running.stderr.read()

    assert running.returncode == 143
    assert "terminated; finished work is kept. Resume with:\n  autocut search" in rest
    assert "***" not in rest
    assert "Traceback" not in rest
    with sqlite3.connect(folder / "study" / "study.db") as database:
        assert database.execute("select count(*) from trials where state = 'RUNNING'").fetchone()[0] == 0


def test_after_kill_9_the_same_command_goes_on(small_task_file):
    """Nothing finished is lost or done again, and no second is counted twice."""
    folder = small_task_file.parent
    study = folder / "study"
    with subprocess.Popen(command(folder, "150s"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        deadline = time.monotonic() + 140
        while time.monotonic() < deadline:
            if (study / "study.db").exists() and len(finished_stages(study)) >= 12:
                break
            time.sleep(0.5)
        os.kill(killed.pid, signal.SIGKILL)
    before = finished_stages(study)
    with sqlite3.connect(study / "study.db") as database:
        worked_s = database.execute("select sum(worked_s) from autocut_session").fetchone()[0]
    done = search(folder, "150s")

    assert done.returncode == 0, done.stderr
    made_before = {key for key, cached in before if not cached}
    made_after = [key for key, cached in finished_stages(study)[len(before) :] if not cached]
    assert not made_before & set(made_after)
    assert len(made_after) == len(set(made_after))
    with sqlite3.connect(study / "study.db") as database:
        total_s = database.execute("select sum(worked_s) from autocut_session").fetchone()[0]
        running = database.execute("select count(*) from trials where state = 'RUNNING'").fetchone()[0]
    assert worked_s < total_s <= 155
    assert running == 0


def test_a_longer_budget_extends_a_finished_search(small_task_file):
    """The same study, more trials."""
    folder = small_task_file.parent
    first = search(folder, "70s")
    spent = search(folder, "70s")
    before = len(finished_stages(folder / "study"))
    longer = search(folder, "110s")

    assert first.returncode == spent.returncode == longer.returncode == 0, first.stderr + spent.stderr + longer.stderr
    assert "is spent" in spent.stderr
    assert len(finished_stages(folder / "study")) > before
