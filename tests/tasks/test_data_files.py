"""Finding and downloading data files."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from autocut.errors import TaskError
from autocut.tasks.data_files import DataFile


@pytest.fixture(autouse=True)
def _clean(tmp_path, monkeypatch):
    """No data directory named; an empty cache."""
    monkeypatch.delenv("AUTOCUT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def published(tmp_path, content=b"official", **options):
    """A file that is published on this machine."""
    source = tmp_path / "published"
    source.write_bytes(content)
    return DataFile("set", "file.bin", source.as_uri(), hashlib.sha256(content).hexdigest(), **options)


def test_a_download_is_checked_and_kept(tmp_path):
    """The second time nothing is fetched."""
    file = published(tmp_path)
    path = file.fetch()
    (tmp_path / "published").unlink()

    assert path.read_bytes() == b"official"
    assert file.fetch() == path
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(tmp_path):
    """A file that is cut short or replaced never gets its name."""
    file = published(tmp_path)
    (tmp_path / "published").write_bytes(b"offic")
    with pytest.raises(TaskError, match="must have the SHA-256"):
        file.fetch()
    assert file.find() is None
    assert list((tmp_path / "cache/autocut/data/set").iterdir()) == []


def test_a_member_of_an_archive_comes_with_its_siblings(tmp_path):
    """CIFAR-10 is published as one archive; a member's own path cannot lead out of the folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("inner/file.bin", "../../outside.bin"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"data"))
    path = published(tmp_path, packed.getvalue(), in_archive=True).fetch()

    assert path.read_bytes() == b"data"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["file.bin", "outside.bin"]


@pytest.mark.parametrize("place", ["file.bin", "set/file.bin"])
def test_files_are_found_in_the_named_directory(tmp_path, monkeypatch, place):
    """In it, or in the folder of the data set."""
    target = tmp_path / "mine" / place
    target.parent.mkdir(parents=True)
    target.touch()
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path / "mine"))

    assert published(tmp_path).fetch() == target


def test_a_named_directory_without_the_file_is_an_error_and_nothing_is_downloaded(tmp_path, monkeypatch):
    """A user who names a directory does not want the network."""
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"AUTOCUT_DATA must hold set/file\.bin") as caught:
        published(tmp_path).fetch()
    assert "unset" in caught.value.hint
    assert not (tmp_path / "cache").exists()


def test_an_unreachable_address_is_an_error_with_another_way(tmp_path):
    """A machine without a network can use downloaded files."""
    missing = DataFile("set", "file.bin", (tmp_path / "nothing").as_uri(), "0" * 64)
    with pytest.raises(TaskError, match="must be reachable") as caught:
        missing.fetch()
    assert "AUTOCUT_DATA=" in caught.value.hint
