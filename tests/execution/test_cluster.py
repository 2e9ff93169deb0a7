"""A whole search on nodes that this machine simulates, while what it depends on breaks.

PostgreSQL is Debian's package, started by an unprivileged user. The search is a process of its own, as a user starts it.
"""

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from postgresql import binaries, postgresql
from simulated import intervals, overlaps, simulated_cluster

from autocut.measure.machine import machine_fingerprint
from autocut.study import open_study

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
HERE = Path(__file__).parents[2] / "studies" / "nodes"
BUDGET_S = 180


@pytest.fixture
def database():
    """A running PostgreSQL server."""
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is missing: pip install 'autocut[postgresql]'")
    if binaries() is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    with postgresql() as server:
        yield server


def search(cluster, folder, *arguments, budget_s=BUDGET_S):
    """Start a search."""
    where = ["--out", str(folder / "study"), "--stages", str(folder / "shared"), "--ray-address", cluster.address]
    what = [
        str(HERE / "task.py"),
        "--space",
        str(HERE.parent / "kills" / "space.toml"),
        "--budget",
        f"{budget_s}s",
        "--price-per-hour",
        "0.1",
    ]
    command = [sys.executable, "-m", "autocut", "search", *what, *where, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


_LOOK = """
import json, sys
from pathlib import Path
from autocut.study import open_study
study = open_study(Path(sys.argv[1]))
bundles = {point.trial: bool(point.bundle) for point in study.front()}
print(json.dumps([[one.trial, one.recipe.canonical_json(), one.measured is not None, one.reason, bundles.get(one.trial, False)]
                  for one in study.trials()]))
"""


@dataclass(frozen=True)
class Seen:
    """A finished trial of a study."""

    number: int
    recipe: str
    is_measured: bool
    reason: str | None
    has_bundle: bool


def look(folder):
    """Return the finished trials, read by another process; none while the study is being made, or its server is away."""
    read = subprocess.run([sys.executable, "-c", _LOOK, str(folder / "study")], capture_output=True, text=True)
    return [Seen(*row) for row in json.loads(read.stdout)] if read.returncode == 0 else []


def wait_for_trials(database, folder, count, within_s=150):
    """Wait until the study has so many finished trials, and return them. The server is asked: another process would take a core."""
    until = time.monotonic() + within_s
    while int(database.ask("SELECT COUNT(*) FROM trials WHERE state <> 'RUNNING'") or 0) < count:
        assert time.monotonic() < until, f"no {count} trials within {within_s} s, but {look(folder)}"
        time.sleep(0.5)
    return look(folder)


@pytest.fixture
def two_nodes(tmp_path):
    """A cluster of a head and two nodes, on which a training takes two seconds."""
    with simulated_cluster(2, tmp_path, environment={"NODES_EPOCH_S": "2"}) as cluster:
        yield cluster


def test_a_database_restarts_and_a_node_dies_and_no_trial_is_lost_or_doubled(two_nodes, database, tmp_path):
    """Jobs of the dead node run elsewhere and no recipe is blamed; nothing is timed at once on a node; the front verifies."""
    with search(two_nodes, tmp_path, "--storage", database.url) as process:
        before = wait_for_trials(database, tmp_path, 3)
        database.kill()
        time.sleep(2)
        database.start()
        wait_for_trials(database, tmp_path, len(before) + 2)
        two_nodes.kill(1)
        told = process.communicate()[1]
    assert process.returncode == 0, told

    trials = look(tmp_path)
    measured = Counter(trial.recipe for trial in trials if trial.is_measured)
    assert [trial.recipe for trial in trials[: len(before)]] == [trial.recipe for trial in before]
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert set(measured.values()) == {1}
    assert len(trials) > len(before) + 2
    assert blamed(trials) == set()
    assert "is lost" in told
    assert any(trial.has_bundle for trial in trials)
    for number in (0, 1):
        assert overlaps(intervals(tmp_path / f"locks-{number}")) == []
    assert intervals(tmp_path / "locks-1")


def test_a_killed_driver_takes_its_jobs_with_it_and_its_command_goes_on(tmp_path):
    """Nothing of autocut works on the node any more; then nothing finished is lost, and no recipe is blamed or measured twice."""
    with simulated_cluster(1, tmp_path, environment={"NODES_EPOCH_S": "2"}) as cluster:
        with search(cluster, tmp_path) as process:
            wait_until(lambda: finished(tmp_path) >= 3, "three trials", within_s=150)
            process.kill()
        wait_until(lambda: not fork_servers(tmp_path), "the end of the node's fork server", within_s=60)
        before = look(tmp_path)
        with search(cluster, tmp_path) as process:
            told = process.communicate()[1]
    assert process.returncode == 0, told

    trials = look(tmp_path)
    measured = Counter(trial.recipe for trial in trials if trial.is_measured)
    assert [trial for trial in before if trial.is_measured]
    assert {(trial.number, trial.recipe) for trial in before} <= {(trial.number, trial.recipe) for trial in trials}
    assert set(measured.values()) == {1}
    assert len(trials) > len(before) + 1
    assert blamed(trials) == set()
    assert any(trial.has_bundle for trial in trials)
    assert overlaps(intervals(tmp_path / "locks-0")) == []


def blamed(trials):
    """Why trials failed, but for those that were interrupted. No fault makes a recipe infeasible: a ratio may remove no channel."""
    reasons = {trial.reason for trial in trials if not trial.is_measured}
    return {reason for reason in reasons if "interrupted" not in reason and not reason.startswith("infeasible: ")}


def wait_until(holds, what, within_s):
    """Wait until `holds()` is true."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"no {what} within {within_s} s"
        time.sleep(0.5)


def finished(folder):
    """How many trials of the study in SQLite have ended; 0 while it is being made."""
    if not (folder / "study" / "study.db").exists():
        return 0
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(folder / "study" / "study.db")) as rows:
        return rows.execute("SELECT COUNT(*) FROM trials WHERE state <> 'RUNNING'").fetchone()[0]
    return 0


def fork_servers(folder):
    """The processes of fork servers, and of their jobs, on the nodes whose lock folders are in `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_here = process.environ().get("AUTOCUT_LOCK_DIR", "").startswith(f"{folder}/locks-")
            if is_here and "autocut.execution.fork_server" in process.cmdline():
                found.append(process.pid)
    return found


def test_a_kind_of_node_that_is_not_there_is_told_before_anything_runs(two_nodes, tmp_path):
    """With exit code 2, and without a stage."""
    (tmp_path / "shared").mkdir()
    with search(two_nodes, tmp_path, "--measure-on", "no such processor", budget_s=60) as process:
        told = process.communicate()[1]

    assert process.returncode == 2
    assert "--measure-on must name one kind of node" in told
    assert not list((tmp_path / "shared").glob("*/stages/entries/*"))


def test_a_node_of_another_kind_only_trains(tmp_path):
    """Its trainings count, nothing is timed there, and all numbers are of the kind that measures."""
    with simulated_cluster(1, tmp_path, environment={"NODES_EPOCH_S": "8"}) as cluster:
        cluster.add(NODES_CPU="Pretended Processor 9000")
        words = "--measure-on", machine_fingerprint(), "--space", str(HERE / "space.toml")  # in which every recipe trains
        with search(cluster, tmp_path, *words, budget_s=300) as process:
            told = process.communicate()[1]
    assert process.returncode == 0, told
    assert "only trains, 1 at a time: Pretended 9000" in told

    with contextlib.closing(open_study(tmp_path / "study")) as study:
        machines = {point.measurement.cost.machine for point in study.points()}
        assert machines == {machine_fingerprint()}
        assert len(study.facts["training_kinds"]) == 1
        assert "dollars of training may not hold" in study.facts["price_fit"]
        assert any(point.bundle for point in study.front())
        assert [trial.reason for trial in study.trials() if trial.state == "FAIL" and not trial.retry] == []
    assert intervals(tmp_path / "locks-0")
    assert intervals(tmp_path / "locks-1") == []
    assert (tmp_path / "locks-1" / "trainings.txt").exists()


def test_two_searches_of_one_study_share_the_processors_of_a_cluster(tmp_path):
    """Each has the workers that it asked for. No recipe is tried twice. While one times, the other works nowhere on the node."""
    with simulated_cluster(1, tmp_path, slots=2, environment={"NODES_EPOCH_S": "2"}) as cluster:
        searches = [search(cluster, tmp_path, "--workers", "1") for _ in range(2)]
        told = [process.communicate()[1] for process in searches]
    assert [process.returncode for process in searches] == [0, 0], told

    measured = Counter(trial.recipe for trial in look(tmp_path) if trial.is_measured)
    assert set(measured.values()) == {1}
    assert all(text.count("trial ") > 1 for text in told)
    assert overlaps(intervals(tmp_path / "locks-0")) == []
    with contextlib.closing(open_study(tmp_path / "study")) as study:
        assert len(study.ledger()["sessions"]) == 2
        assert study.paid_s() < 0.8 * study.spent_s()
        assert any(point.bundle for point in study.front())


def test_a_search_without_a_free_processor_is_told_before_anything_runs(tmp_path):
    """Another program has reserved them all: two searches of one cluster divide it by --workers."""
    import ray

    with simulated_cluster(1, tmp_path) as cluster:
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            taken = ray.remote(num_cpus=1)(threading.Event).remote()
            ray.get(taken.is_set.remote())
            with search(cluster, tmp_path, budget_s=60) as process:
                told = process.communicate()[1]
        finally:
            ray.shutdown()

    assert process.returncode == 2
    assert "must have a processor for a job" in told
    assert "--workers" in told
