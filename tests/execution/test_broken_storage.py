"""What a study is stored in breaks while a search uses it. The search ends at once, says why, and shows no traceback.

Elsewhere: a full disk (`pipeline/test_stage_cache`, `study/test_study`), a database that was damaged before (`study/test_opening`).
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KILLS = Path(__file__).parents[2] / "studies" / "kills"
ENDS_WITHIN_S = 60.0


def begin(folder):
    """Start a search of a small task, and wait until it has measured something."""
    words = [str(KILLS / "task.py"), "--space", str(KILLS / "space.toml"), "--budget", "10m", "--out", str(folder / "study")]
    environment = {**os.environ, "AUTOCUT_LOCK_DIR": str(folder / "locks")}
    with (folder / "told.txt").open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "autocut", "search", *words], env=environment, stdout=subprocess.DEVNULL, stderr=stream
        )
    until = time.monotonic() + 120
    while "] trial " not in told(folder) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    return process


def told(folder):
    """What the search has told so far."""
    return (folder / "told.txt").read_text()


def remove(study):
    """Somebody tidies up."""
    shutil.rmtree(study, ignore_errors=True)


def overwrite(study):
    """Another program writes where it should not."""
    with (study / "study.db").open("r+b") as database:
        database.write(os.urandom(1 << 16))
    (study / "study.db-wal").unlink(missing_ok=True)


@pytest.mark.parametrize("break_it", [remove, overwrite])
def test_a_search_whose_study_breaks_ends_and_says_so(tmp_path, break_it):
    """Nothing is made anew where the study was: what is left can be looked at."""
    process = begin(tmp_path)
    try:
        break_it(tmp_path / "study")
        code = process.wait(ENDS_WITHIN_S)
    finally:
        process.kill()
        process.wait()

    assert code == 2, told(tmp_path)
    assert "Traceback" not in told(tmp_path)
    assert f"study {tmp_path / 'study'}" in told(tmp_path)


def test_a_damaged_stage_is_made_again(tmp_path):
    """Its checksum tells. No recipe is blamed."""
    process = begin(tmp_path)
    try:
        for path in (tmp_path / "study" / "stages" / "entries").glob("*/output/*"):
            path.write_bytes(b"damaged")
        seen = told(tmp_path).count("] trial ")
        until = time.monotonic() + ENDS_WITHIN_S
        while told(tmp_path).count("] trial ") < seen + 3 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()

    assert told(tmp_path).count("] trial ") >= seen + 3
    assert "failed" not in told(tmp_path)
    assert "bug" not in told(tmp_path)
