"""Two whole searches of one study at the same time, each in processes of its own. Slow: minutes each.

The same decisions in simulated time: `search/test_companions`.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from postgresql import binaries, postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def begin(folder, budget, log, *more):
    """Start a search of the study in `folder`, which tells what it does in the file `log`."""
    words = ["search", str(folder / "task.py"), "--budget", budget, "--space", "quick", "--out", str(folder / "study"), *more]
    with (folder / log).open("w") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "autocut", *words, "--workers", "1"], cwd=folder, stdout=subprocess.DEVNULL, stderr=stream
        )


def rows(folder, query):
    """Answer a question about the study."""
    with closing(sqlite3.connect(folder / "study" / "study.db", timeout=60)) as database:
        return database.execute(query).fetchall()


def assert_nothing_was_done_twice(folder):
    """No recipe was tried, no stage made and no point tested twice; nothing is left running, and the ledger adds up."""
    tried = rows(
        folder,
        "select value_json from trial_user_attributes join trials using (trial_id)"
        " where key = 'fingerprint' and state in ('COMPLETE', 'FAIL')"
        " and trial_id not in (select trial_id from trial_user_attributes where key = 'retry')",
    )
    assert {recipe for recipe, count in Counter(tried).items() if count > 1} == set()
    made = rows(folder, "select key, stage, method from autocut_stage_run where not cached and outcome = 'done'")
    assert {stage for stage, count in Counter(made).items() if count > 1} == set()
    tested = rows(folder, "select trial from autocut_look where purpose = 'finalization'")
    assert len(tested) == len(set(tested)) > 1
    assert rows(folder, "select number from trials where state = 'RUNNING'") == []
    assert rows(folder, "select * from autocut_booking") == []
    for session, worked_s in rows(folder, "select id, worked_s from autocut_session"):
        ((charged_s,),) = rows(
            folder, f"select sum(seconds) from autocut_charge where session = {session} and category <> 'borrowed'"
        )
        assert charged_s == pytest.approx(worked_s, rel=0.02)


def assert_bundles_verify(folder):
    """Every bundle of the front does what it claims."""
    told = subprocess.run(
        [sys.executable, "-m", "autocut", "front", str(folder / "study"), "--json"], capture_output=True, text=True, check=True
    )
    bundles = [point["bundle"] for point in json.loads(told.stdout)["points"] if point["bundle"]]
    assert bundles
    for bundle in bundles:
        path = Path(bundle) if Path(bundle).is_absolute() else folder / "study" / bundle
        done = subprocess.run([sys.executable, "-m", "autocut", "verify", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_two_searches_share_one_study(small_task_file):
    """Both add to it, each within a budget of its own; everything is done once."""
    folder = small_task_file.parent
    searches = [begin(folder, "100s", "first.log"), begin(folder, "100s", "second.log")]
    codes = [search.wait() for search in searches]
    told = [(folder / log).read_text() for log in ("first.log", "second.log")]

    assert codes == [0, 0], told
    assert_nothing_was_done_twice(folder)
    for text in told:
        assert "together: process" in text
        assert text.count("] trial ") > 1
    worked = rows(folder, "select worked_s from autocut_session")
    assert len(worked) == 2
    assert all(worked_s <= 105 for (worked_s,) in worked)
    assert_bundles_verify(folder)


def test_when_one_search_is_killed_the_other_goes_on(small_task_file):
    """`kill -9`: what it worked on is freed and tried again. The same command begins again with the time that it had left."""
    folder = small_task_file.parent
    killed, other = begin(folder, "100s", "killed.log"), begin(folder, "110s", "other.log")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and (folder / "killed.log").read_text().count("] trial ") < 3:
        time.sleep(0.2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    again = begin(folder, "100s", "again.log")
    codes = [again.wait(), other.wait()]
    told = (folder / "other.log").read_text()

    assert codes == [0, 0], told
    assert f"together: process {killed.pid} on" in told
    assert_nothing_was_done_twice(folder)
    worked = dict(rows(folder, "select pid, worked_s from autocut_session"))
    assert worked[killed.pid] + worked[again.pid] <= 105
    assert worked[other.pid] <= 115
    assert_bundles_verify(folder)


def test_when_one_search_is_interrupted_the_other_goes_on(small_task_file):
    """Ctrl-C: it says how to go on. The other one frees what it had booked, and tries it."""
    folder = small_task_file.parent
    interrupted, other = begin(folder, "100s", "interrupted.log"), begin(folder, "110s", "other.log")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and (folder / "interrupted.log").read_text().count("] trial ") < 3:
        time.sleep(0.2)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(30) == 130
    told = (folder / "interrupted.log").read_text()
    assert "Traceback" not in told
    assert "autocut search" in told
    assert other.poll() is None

    assert other.wait() == 0
    assert_nothing_was_done_twice(folder)
    assert_bundles_verify(folder)


def test_two_folders_share_a_study_on_a_server(small_task_file):
    """As two machines do: PostgreSQL has the trials, a shared folder the stages, and each search keeps the bundles that it made."""
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is missing: pip install 'autocut[postgresql]'")
    if binaries() is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    folder = small_task_file.parent
    with postgresql() as server:
        shared = ["--storage", server.url, "--stages", str(folder / "shared")]
        places = [folder / "first", folder / "second"]
        searches = [begin(folder, "100s", f"{place.name}.log", *shared, "--out", str(place)) for place in places]
        codes = [search.wait() for search in searches]
        tried = server.ask(
            "select count(*), count(distinct value_json) from trial_user_attributes join trials using (trial_id)"
            " where key = 'fingerprint' and state in ('COMPLETE', 'FAIL')"
            " and trial_id not in (select trial_id from trial_user_attributes where key = 'retry')"
        )
        made = server.ask(
            "select count(*), count(distinct key || stage || method) from autocut_stage_run where not cached and outcome = 'done'"
        )
        verified = server.ask("select bundle from autocut_final where verified and bundle is not null").splitlines()
        left = server.ask("select count(*) from autocut_booking")

    told = [(folder / f"{place.name}.log").read_text() for place in places]
    assert codes == [0, 0], told
    assert all("together: process" in text for text in told)
    for counts in (tried, made):
        count, different = counts.split("|")
        assert count == different
    assert left == "0"
    assert verified
    assert all(sum((place / bundle).is_dir() for place in places) == 1 for bundle in verified)
