"""The key that signs what a study folder holds: stages of a stranger run no code."""

import json
import os
import stat

import pytest
import torch

from autocut.errors import InputError, StudyError
from autocut.pipeline import signing, stage_cache
from autocut.pipeline.signing import Signer, key_file, own_secret, refuse_foreign_task, sign_task
from autocut.pipeline.stage_cache import StageCache, stage_key
from autocut.stages.model_files import restore_model, save_model

KEY = stage_key("", "train", {"epochs": 1}, seed=0)
STRANGER = b"another person's key" * 2


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        """What a pickle says is done, whatever it is."""
        return os.mkdir, (str(self.path),)


@pytest.fixture
def own_key(tmp_path, monkeypatch):
    """A key file of the test's own, which is not there yet."""
    monkeypatch.setenv("AUTOCUT_KEY_FILE", str(tmp_path / "config" / "stage.key"))
    return tmp_path / "config" / "stage.key"


def trap(path):
    """A stage whose output runs code when it is read."""

    def make(folder):
        torch.save({"model": Trap(path), "masks": {}}, folder / "model.pt")

    return make


def honest(folder):
    """A stage as autocut makes it, with facts that JSON changes."""
    save_model(folder, torch.nn.Linear(2, 2), {})
    return {"sizes": (1, 2), "by size": {2: 0.5, 10: 0.25}}


def test_a_crafted_pickle_in_a_study_folder_runs_no_code(tmp_path):
    """Its folder and checksums are as they should be; only the stranger cannot sign it."""
    StageCache(tmp_path / "stages", secret=STRANGER).get_or_make(KEY, "train", "linear", trap(tmp_path / "trapped"))
    cache = StageCache(tmp_path / "stages")
    assert cache.unsigned() == [KEY]
    assert cache.find(KEY) is None
    entry = cache.get_or_make(KEY, "train", "linear", honest)
    restore_model(entry.folder)

    assert not (tmp_path / "trapped").exists()
    assert not cache.unsigned()
    with pytest.raises(AttributeError):  # the trap is one
        restore_model(StageCache(tmp_path / "other").get_or_make(KEY, "train", "linear", trap(tmp_path / "trapped")).folder)
    assert (tmp_path / "trapped").exists()


@pytest.mark.parametrize("change", ["facts", "files", "signature", "key"])
def test_a_changed_record_is_no_record(tmp_path, change):
    """Checksums of other files, other facts, another signature, or the record of another stage."""
    cache = StageCache(tmp_path)
    entry = cache.get_or_make(KEY, "train", "linear", honest)
    path = entry.folder.parent / "entry.json"
    record = json.loads(path.read_text())
    if change == "key":
        entry.folder.parent.rename(entry.folder.parents[1] / KEY[::-1])
    else:
        path.write_text(json.dumps(record | {change: {} if change != "signature" else 1}))

    assert StageCache(tmp_path).find(KEY[::-1] if change == "key" else KEY) is None


def test_stages_that_are_adopted_count(tmp_path):
    """Those of an older version, which signed nothing: with their seconds and facts."""
    cache = StageCache(tmp_path)
    path = cache.get_or_make(KEY, "train", "linear", honest).folder.parent / "entry.json"
    record = json.loads(path.read_text())
    del record["signature"]
    path.write_text(json.dumps(record))
    old = StageCache(tmp_path)
    assert old.unsigned() == [KEY]
    assert old.adopt() == 1

    assert StageCache(tmp_path).find(KEY).facts == {"sizes": [1, 2], "by size": {"2": 0.5, "10": 0.25}}
    assert old.adopt() == 0


def test_the_key_is_made_once_for_its_user_alone(own_key):
    """Nobody else may read it."""
    first = own_secret()

    assert key_file() == own_key
    assert stat.S_IMODE(own_key.stat().st_mode) == 0o600
    assert len(first) == 32
    signing._secret.cache_clear()
    assert own_secret() == first
    assert [path.name for path in own_key.parent.iterdir()] == ["stage.key"]


def test_two_searches_that_begin_together_get_the_same_key(own_key, monkeypatch):
    """The second one finds it missing, and there a moment later."""
    own_secret()
    before = own_key.read_bytes()
    signing._make(own_key)

    assert own_key.read_bytes() == before


def test_a_key_that_cannot_be_is_told(own_key):
    """Too short, or where nothing can be written."""
    own_key.parent.mkdir()
    own_key.write_bytes(b"short")
    with pytest.raises(InputError, match="must hold at least 32 bytes, got 5"):
        own_secret()
    own_key.unlink()
    own_key.mkdir()
    with pytest.raises(InputError, match="must be readable") as caught:
        own_secret()
    assert "AUTOCUT_KEY_FILE" in caught.value.hint


def test_a_key_that_depends_on_the_working_folder_is_refused(monkeypatch):
    """A worker with another working folder would make another key, and count every stage as a stranger's."""
    monkeypatch.setenv("AUTOCUT_KEY_FILE", "stage.key")

    with pytest.raises(InputError, match="AUTOCUT_KEY_FILE must be a path from the root"):
        own_secret()


def test_a_user_without_a_home_is_told(monkeypatch):
    """As in a container that runs under any number."""

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("AUTOCUT_KEY_FILE")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(signing.Path, "home", nowhere)

    with pytest.raises(InputError, match="must have a home"):
        own_secret()


def test_the_task_of_a_foreign_study_is_not_run(tmp_path):
    """`autocut export` would run the file that the study names."""
    path = str(tmp_path / "task.py")
    facts = {"task_path": path, "task_signature": sign_task(path, "f")}
    refuse_foreign_task(facts, "f", tmp_path)
    refuse_foreign_task({"task_path": None}, "f", tmp_path)

    for foreign in ({"task_path": path}, facts | {"task_signature": Signer(STRANGER).sign("task", path, "f")}):
        with pytest.raises(StudyError, match="was not signed"):
            refuse_foreign_task(foreign, "f", tmp_path)
    with pytest.raises(StudyError):
        refuse_foreign_task(facts, "another version", tmp_path)


def test_a_checksum_is_computed_once_in_a_process(tmp_path, monkeypatch):
    """A stage is looked for before it is made, under its lock, and after: the same bytes are read once."""
    read = []
    checksum = stage_cache._checksum
    monkeypatch.setattr(stage_cache, "_checksum", lambda path: read.append(path.name) or checksum(path))
    StageCache(tmp_path).get_or_make(KEY, "train", "linear", honest)
    assert read == ["model.pt"]

    read.clear()
    cache = StageCache(tmp_path)
    for _ in range(3):
        assert cache.find(KEY).cached
    assert cache.gated(cache._gate).get_or_make(KEY, "train", "linear", honest).cached
    assert read == ["model.pt"]
