"""The disk of the stages is the search's matter, any other disk that of the recipe that needs room there."""

from __future__ import annotations

import errno
import os
from collections import namedtuple
from pathlib import Path

import pytest

from autocut.errors import CompilerError, DiskFullError, DivergedError, InputError
from autocut.pipeline import full_disk

Usage = namedtuple("Usage", "free")
FULL, ROOM = Usage(0), Usage(2**40)


@pytest.fixture
def disks(tmp_path, monkeypatch):
    """Make two folders that seem to lie on two disks, `stages` and `temporary`. Call it to fill some of them."""
    folders = {name: tmp_path / name for name in ("stages", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    real = Path.stat

    def stat(path, **follow):
        found = real(path, **follow)
        is_temporary = path.is_relative_to(folders["temporary"])
        return os.stat_result((*found[:2], 1_000_000 if is_temporary else found[2], *found[3:10]))

    def are_full(*names):
        full = [folders[name] for name in names]
        monkeypatch.setattr(full_disk.shutil, "disk_usage", lambda path: FULL if Path(path) in full else ROOM)
        return folders["stages"], folders["temporary"]

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(full_disk.tempfile, "gettempdir", lambda: str(folders["temporary"]))
    return are_full


def no_space(file=None):
    """The error of a full disk, as Python raises it."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([str(file)] if file else []))


def told(stages, error):
    """Return what becomes of an error."""
    with pytest.raises(Exception) as caught, full_disk.told_whose_disk_is_full(stages):  # noqa: PT011
        raise error
    return caught.value


def test_without_room_for_stages_the_search_ends(disks):
    """Whatever the library makes of it."""
    stages, _ = disks("stages")

    for error in (no_space(), no_space(stages / "new" / "weights.pt"), RuntimeError("PytorchStreamWriter failed writing file")):
        assert isinstance(told(stages, error), InputError)


def test_a_file_on_the_disk_of_the_stages_is_enough(disks):
    """A quota is used up, or the library has removed what it could not finish: the disk looks as if it had room."""
    stages, _ = disks()

    assert isinstance(told(stages, no_space(stages / "building" / "model.so")), InputError)


@pytest.mark.parametrize(
    "make",
    [
        lambda temporary: no_space(),
        lambda temporary: no_space(temporary / "not" / "yet" / "there.cpp"),
        lambda temporary: RuntimeError("write failed: No space left on device (os error 28)"),
        lambda temporary: CompilerError("g++ failed: internal error"),
    ],
)
def test_without_room_elsewhere_the_recipe_fails(disks, make):
    """The reason names the folder: the user may have set TMPDIR to a small one. The search goes on."""
    stages, temporary = disks("temporary")
    error = told(stages, make(temporary))

    assert isinstance(error, DiskFullError)
    assert f"disk under {temporary} must have room" in error.message


def test_an_error_that_names_no_disk_does_not_end_the_search(disks):
    """Both disks have room again when it is looked at: the message says where libraries usually write."""
    stages, temporary = disks()
    error = told(stages, RuntimeError("No space left on device"))

    assert isinstance(error, DiskFullError)
    assert str(temporary) in error.message


def test_other_errors_keep_their_reason(disks):
    """A full disk beside it is not what made a loss infinite, and a bug is a bug while disks have room."""
    stages, _ = disks("temporary")
    assert isinstance(told(stages, DivergedError("the loss must be finite")), DivergedError)
    stages, _ = disks()
    assert isinstance(told(stages, ValueError("a bug")), ValueError)
