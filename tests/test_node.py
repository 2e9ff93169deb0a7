"""What all processes of one machine share: the folder of its locks."""

import multiprocessing
import os
import stat

import pytest

from autocut.errors import DeadlineError, InputError
from autocut.measure.quiet import QuietLock
from autocut.node import lock_reach, network_disk, node_folder


def _hold(tmpdir, is_held, done):
    os.environ["TMPDIR"] = tmpdir
    with QuietLock().exclusive():
        is_held.set()
        done.wait(60)


def test_locks_hold_between_processes_with_other_temporary_folders(tmp_path, monkeypatch):
    """A search with TMPDIR set still runs on the same cores."""
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", str(tmp_path / "locks"))
    context = multiprocessing.get_context("spawn")
    is_held, done = context.Event(), context.Event()
    (tmp_path / "other").mkdir()
    holder = context.Process(target=_hold, args=(str(tmp_path / "other"), is_held, done))
    holder.start()
    assert is_held.wait(60)
    with pytest.raises(DeadlineError), QuietLock().shared(timeout_s=0.05):
        pass
    done.set()
    holder.join()

    with QuietLock().shared(timeout_s=5):
        pass


def test_the_folder_does_not_follow_the_temporary_folder(tmp_path, monkeypatch):
    """Only AUTOCUT_LOCK_DIR moves it."""
    monkeypatch.delenv("AUTOCUT_LOCK_DIR", raising=False)
    usual = node_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert node_folder() == usual
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", str(tmp_path / "shared"))

    assert node_folder() == tmp_path / "shared"


def test_a_shared_folder_can_be_used_by_every_user_in_it(tmp_path, monkeypatch):
    """Containers of one host may run as different users."""
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", str(tmp_path / "shared"))
    with QuietLock().shared():
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "shared").iterdir()}

    assert modes == {0o666}
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o1777


def test_a_folder_that_cannot_be_is_told(tmp_path, monkeypatch):
    """Before the search begins, with what to type."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", str(tmp_path / "file" / "locks"))

    with pytest.raises(InputError, match="AUTOCUT_LOCK_DIR must be a folder") as caught:
        node_folder()
    assert caught.value.hint


@pytest.mark.parametrize("named", ["locks", "./locks", "~nobody-has-this-name/locks"])
def test_a_folder_that_depends_on_the_working_folder_is_refused(monkeypatch, named):
    """A worker with another working folder would lock other files, and nobody would notice."""
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", named)

    with pytest.raises(InputError, match="AUTOCUT_LOCK_DIR must be a path from the root"):
        node_folder()


def test_a_folder_in_the_users_home_is_found(tmp_path, monkeypatch):
    """A file of variables is read by no shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", "~/locks")

    assert node_folder() == tmp_path / "locks"


def test_a_lock_that_is_a_link_is_refused(tmp_path, monkeypatch):
    """Another user of a shared folder could make it lead to a file of this user, which every user could then write to."""
    private = tmp_path / "private"
    private.write_text("")
    private.chmod(0o600)
    (tmp_path / "quiet.lock").symlink_to(private)
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", str(tmp_path))

    with pytest.raises(InputError, match=r"must be a plain file that can be written, got .*: it is a link"), QuietLock().shared():
        pass
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_where_locks_do_not_hold_it_is_said(tmp_path, monkeypatch):
    """A network disk, and a container of which others on the host know nothing."""
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "proc" / "mounts").write_text(f"disk / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setenv("AUTOCUT_LOCK_DIR", str(tmp_path / "shared"))
    assert "on a network disk (nfs4)" in lock_reach(root)
    (root / "proc" / "mounts").write_text("disk / ext4 rw 0 0\n")
    (root / ".dockerenv").write_text("")
    assert lock_reach(root) is None
    monkeypatch.delenv("AUTOCUT_LOCK_DIR")

    assert "of this container alone; AUTOCUT_LOCK_DIR=FOLDER" in lock_reach(root)


@pytest.mark.parametrize(("kind", "found"), [("nfs4", "nfs4"), ("fuse.s3fs", "fuse.s3fs"), ("ext4", "")])
def test_a_network_disk_is_known_by_its_kind(tmp_path, kind, found):
    """Also what a user has mounted. The innermost mount counts."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "mounts").write_text(f"disk / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\n")

    assert network_disk(tmp_path / "study", tmp_path) == found
