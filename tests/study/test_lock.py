"""Who searches a study: several searches at once, each known to the others while it lives."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from autocut.errors import StudyError
from autocut.study import is_empty
from autocut.study import lock as lock_module
from autocut.study.lock import SearchLock

_SEARCH = """
import sys, time
from pathlib import Path
from autocut.study import create_study
what = {"name": "digits", "task_fingerprint": "t1", "space_json": "{}", "objectives": {"accuracy": "maximize"}, "seed": 0}
study = create_study(Path(sys.argv[1]), **what)
print(study.begin_session("autocut search", {}).id, flush=True)
study.lock.end_turn()
time.sleep(60)
"""


@pytest.fixture
def search(make_study):
    """Begin a search of the study, as `autocut search` does."""

    def begin(**changes):
        study = make_study(**changes)
        study.begin_session("autocut search", {})
        study.lock.end_turn()
        return study

    return begin


def test_two_searches_see_each_other_until_one_ends(search):
    """A search that ends in any way is seen no more."""
    first, second = search(), search()

    assert first.lock.others() == {second.lock.session}
    assert second.lock.others() == {first.lock.session}
    assert not second.lock.others_elsewhere()
    first.close()
    assert not second.lock.others()


def test_a_study_that_another_search_has_just_opened_counts_as_begun(search):
    """It is about to measure: what it asks for binds the next search, which would otherwise take its study over."""
    first, second = search(), search()

    assert not is_empty(first)
    assert not is_empty(second)
    second.close()
    assert is_empty(first)


def test_a_killed_search_is_seen_no_more(tmp_path, search):
    """The kernel releases its locks; its turn too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", _SEARCH, str(tmp_path / "digits")], stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        session = int(other.stdout.readline())
        study = search(objectives={"accuracy": "maximize"})
        assert study.lock.others() == {session}
        assert study.bookings.searchers([session])[session].startswith(f"process {other.pid} on ")
        other.send_signal(signal.SIGKILL)
        other.wait()

    assert not study.lock.others()
    assert [path.name for path in (study.folder / "searches").iterdir() if path.name.isdigit()] == [str(study.lock.session)]


def test_a_study_that_someone_removes_is_no_bug_of_the_locks(search):
    """The next beat tells it to the user: SQLite goes on writing to a file that has no name any more."""
    study = search()
    study.lock.keep()
    shutil.rmtree(study.folder)

    assert not study.lock.others()
    with pytest.raises(StudyError, match="must stay where it is while it is searched, but is gone"):
        study.lock.keep()


def test_one_search_at_a_time_opens_a_study(make_study, search, monkeypatch):
    """What two of them would check and write at the same moment, they check and write one after the other."""
    monkeypatch.setattr(lock_module, "_TURN_S", 0.1)
    first = make_study()
    with pytest.raises(StudyError, match="is being opened by another search") as refusal:
        make_study()
    assert "--out" in refusal.value.hint

    first.begin_session("autocut search", {})
    first.lock.end_turn()
    assert search().lock.others() == {first.lock.session}


def test_who_clears_up_has_the_turn_alone(search):
    """Two searches that find a dead one do not both end its trials."""
    first, second = search(), search()

    with first.lock.tidying() as is_first, second.lock.tidying() as is_second:
        assert (is_first, is_second) == (True, False)
    with second.lock.tidying() as is_second:
        assert is_second


def test_an_earlier_autocut_searches_alone(tmp_path):
    """It knows of no bookings. It holds the whole lock, and finds it taken where a search of today runs."""
    with (tmp_path / "search.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StudyError, match="searched by an earlier autocut"):
            SearchLock(tmp_path, "digits")
        json.dump({"pid": 4711, "host": "there"}, file)
        file.flush()
        with pytest.raises(StudyError, match="earlier autocut, process 4711 on there") as refusal:
            SearchLock(tmp_path, "digits")
        assert "kill -INT 4711" in refusal.value.hint

    lock = SearchLock(tmp_path, "digits")
    with (tmp_path / "search.lock").open("a+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()
