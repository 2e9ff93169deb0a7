"""What killed processes leave behind, and its removal: when a search ends, and when the next one starts.

A search keeps everything that is temporary in one folder. It holds a lock on a file in it, which the kernel releases when the
process ends, however it ends. So a folder whose lock is free belongs to nobody, also if other containers share the same disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autocut.study import Study

_PREFIX = "autocut-tune-"
_OWNER = "owner.lock"


@contextlib.contextmanager
def scratch_folder(place: str | None = None) -> Iterator[Path]:
    """Make a folder for everything temporary of this search, after removing those of killed searches.

    Args:
        place: Where; None: where temporary files belong on this system.
    """
    _remove_abandoned(Path(place or tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # Locked before it has its name: another search never sees it free.
        with (folder / "owner.draft").open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX)
            (folder / "owner.draft").rename(folder / _OWNER)
            yield folder


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Have the processes that start from now on put their temporary files into `folder`: they go with it."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before


def sweep_study(study: Study, cache_bytes: int) -> None:
    """Remove what killed processes left half made in `study`. What other searches of it may be writing now stays."""
    from autocut.pipeline.stage_cache import StageCache

    StageCache(study.stages_dir, cache_bytes).sweep()
    if study.lock is None:
        _remove_drafts(study)
        return
    with study.lock.tidying() as is_mine:
        if is_mine and not study.lock.others():
            _remove_drafts(study)


def _remove_drafts(study: Study) -> None:
    for folder in {study.folder, study.stages_root}:
        for draft in (folder / "bundles").glob(".*"):
            shutil.rmtree(draft, ignore_errors=True)
    study.trial_files.sweep()


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        # Another user's folder, or one that its owner removes right now.
        with contextlib.suppress(OSError), (folder / _OWNER).open("r+") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Ray's last processes may still write there. Then the lock stays, by which the next search finds the folder again.
            for path in folder.iterdir():
                if path.name != _OWNER:
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            if [path.name for path in folder.iterdir()] == [_OWNER]:
                shutil.rmtree(folder, ignore_errors=True)
