"""The stage cache: nothing is done twice, nothing half written is ever seen."""

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
import types
from pathlib import Path

import pytest

from autocut.errors import InputError
from autocut.pipeline.stage_cache import StageCache, stage_key

KEY = stage_key("", "train", {"epochs": 1}, seed=0)


def write(text):
    """A stage that writes one file."""

    def make(folder: Path):
        (folder / "weights.txt").write_text(text)
        return {"accuracy": 0.5}

    return make


def refuse(folder):
    """A stage that must not be made."""
    raise RuntimeError("made twice")


def size_bytes(cache):
    """Bytes of all files that the cache may evict."""
    return sum(
        path.stat().st_size for kind in ("entries", "checkpoints") for path in (cache.folder / kind).rglob("*") if path.is_file()
    )


def test_a_stage_is_made_once_and_found_after(tmp_path):
    """The second request gets the files, facts and seconds of the first."""
    cache = StageCache(tmp_path)
    made = cache.get_or_make(KEY, "train", "linear", write("a"))
    found = StageCache(tmp_path).get_or_make(KEY, "train", "linear", refuse)

    assert not made.cached
    assert found.cached
    assert (found.folder / "weights.txt").read_text() == "a"
    assert found.facts == {"accuracy": 0.5}
    assert found.seconds == made.seconds


def test_a_damaged_entry_is_made_again(tmp_path):
    """A changed byte must not reach a model."""
    cache = StageCache(tmp_path)
    entry = cache.get_or_make(KEY, "train", "linear", write("a"))
    (entry.folder / "weights.txt").write_text("b")

    assert cache.find(KEY) is None
    assert (cache.get_or_make(KEY, "train", "linear", write("a")).folder / "weights.txt").read_text() == "a"


@pytest.mark.parametrize("change", [{"parent": "x"}, {"settings": {"epochs": 2}}, {"seed": 1}, {"stage": "prune"}])
def test_whatever_decides_a_result_is_part_of_its_key(change):
    """Two stages share a key only if they would give the same files."""
    same = {"parent": "", "stage": "train", "settings": {"epochs": 1}, "seed": 0}

    assert stage_key(**same) == KEY
    assert stage_key(**{**same, **change}) != KEY


def test_a_failed_stage_leaves_nothing(tmp_path):
    """What `make` raises reaches the caller, and the next try starts from nothing."""
    cache = StageCache(tmp_path)
    with pytest.raises(RuntimeError, match="made twice"):
        cache.get_or_make(KEY, "train", "linear", refuse)

    assert list((tmp_path / "building").iterdir()) == []
    assert cache.find(KEY) is None


def test_a_full_disk_is_told_as_the_users_matter(tmp_path):
    """Subject, rule, value and hint, exit code 2; not a traceback."""

    def fill(folder):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "weights.pt"))

    with pytest.raises(InputError, match="must have room") as caught:
        StageCache(tmp_path).get_or_make(KEY, "train", "linear", fill)
    assert caught.value.hint


def _make_slowly(folder, started, count):
    def make(target):
        started.set()
        with (Path(folder) / "made").open("a") as stream:
            stream.write("x")
        time.sleep(0.3)
        (target / "weights.txt").write_text("a")

    for _ in range(count):
        StageCache(Path(folder)).get_or_make(KEY, "train", "linear", make)


def test_two_workers_make_a_stage_once(tmp_path):
    """The second waits for the first and takes what it made."""
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    workers = [context.Process(target=_make_slowly, args=(str(tmp_path), started, 1)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert (tmp_path / "made").read_text() == "x"


def test_a_killed_worker_leaves_no_entry_and_no_lock(tmp_path):
    """After kill -9 the next worker makes the stage without waiting."""
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    worker = context.Process(target=_make_slowly, args=(str(tmp_path), started, 1))
    worker.start()
    assert started.wait(30)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()

    cache = StageCache(tmp_path)
    assert cache.find(KEY) is None
    assert not cache.get_or_make(KEY, "train", "linear", write("b")).cached
    cache.sweep()
    assert list((tmp_path / "building").iterdir()) == []


def test_the_longest_unused_entries_are_evicted(tmp_path):
    """A limit in bytes; what was read last stays."""
    cache = StageCache(tmp_path, limit_bytes=10**6, in_use_s=0.0)
    keys = [stage_key("", "train", {"n": n}) for n in range(4)]
    for age, key in enumerate(keys):
        entry = cache.get_or_make(key, "train", "linear", write("x" * 1000))
        os.utime(entry.folder.parent / "entry.json", (age, age))
    cache.find(keys[0])
    cache.limit_bytes = 2 * 1400
    removed = cache.evict()

    assert removed == keys[1:3]
    assert cache.find(keys[0]) is not None
    assert size_bytes(cache) <= cache.limit_bytes


def test_entries_are_not_listed_after_every_stage(tmp_path):
    """That would take the longer the more there are; when it is time again, the cache shrinks to its limit."""
    cache = StageCache(tmp_path, limit_bytes=1, in_use_s=0)
    keys = [stage_key("", "train", {"epochs": epochs}) for epochs in range(4)]
    (tmp_path / "evict-next").write_text(str(time.time() + 30))
    for key in keys[:3]:
        cache.get_or_make(key, "train", "linear", write("a"))
    assert all(map(cache.find, keys[:3]))

    (tmp_path / "evict-next").write_text(str(time.time() - 1))
    cache.get_or_make(keys[3], "train", "linear", write("a"))
    assert [key for key in keys if cache.find(key)] == keys[3:]
    assert float((tmp_path / "evict-next").read_text()) > time.time() - 1


def test_waiting_for_another_process_is_counted_as_waiting(tmp_path):
    """It makes the same stage; what it takes is its own."""
    first, second = StageCache(tmp_path), StageCache(tmp_path)
    is_making, may_end = threading.Event(), threading.Event()

    def make_slowly(folder):
        is_making.set()
        may_end.wait(30)

    making = threading.Thread(target=first.get_or_make, args=(KEY, "train", "linear", make_slowly))
    making.start()
    is_making.wait(30)
    threading.Timer(0.3, may_end.set).start()
    assert second.get_or_make(KEY, "train", "linear", refuse).cached
    making.join()

    assert second.waited_s > 0.1 > first.waited_s


def test_an_abandoned_checkpoint_is_evicted_like_an_entry(tmp_path):
    """Trainings that were stopped early leave theirs; one that is being trained is locked."""
    cache = StageCache(tmp_path, limit_bytes=0, in_use_s=0.0)
    keys = [stage_key("", "train", {"n": n}) for n in range(3)]
    for age, key in enumerate(keys):
        cache.checkpoint(key).write_text("x" * 1000)
        os.utime(cache.checkpoint(key), (age, age))
    with cache._locked(keys[1]):
        assert cache.evict() == [keys[0]]
    assert not cache.checkpoint(keys[0]).exists()
    assert size_bytes(cache) == 2000


def test_an_unreadable_record_counts_as_no_entry(tmp_path):
    """Half a JSON document, as a torn write would leave it, is dropped."""
    cache = StageCache(tmp_path)
    entry = cache.get_or_make(KEY, "train", "linear", write("a"))
    record = entry.folder.parent / "entry.json"
    record.write_text(json.dumps(json.loads(record.read_text()))[:20])

    assert cache.find(KEY) is None


def test_looking_for_an_entry_never_removes_what_another_worker_is_putting_there(tmp_path):
    """Between looking and not finding, another worker may have finished: nothing of it is ours to remove."""
    cache = StageCache(tmp_path)
    unfinished = tmp_path / "entries" / KEY / "output"
    unfinished.mkdir(parents=True)

    assert cache.find(KEY) is None
    assert unfinished.is_dir()


def test_sweeping_spares_what_is_being_made(tmp_path):
    """`autocut export` may build a trial while a search starts on the same study."""
    cache = StageCache(tmp_path)

    def make(folder):
        cache.sweep()
        (folder / "weights.txt").write_text("a")

    assert cache.get_or_make(KEY, "train", "linear", make).folder.is_dir()


def test_an_error_on_a_full_disk_is_the_disks_whatever_a_library_calls_it(tmp_path, monkeypatch):
    """`torch.save` raises RuntimeError, a compiler another error: neither says anything about the recipe."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=4096))
    with pytest.raises(InputError, match="must have room"):
        StageCache(tmp_path).get_or_make(KEY, "train", "linear", refuse)
