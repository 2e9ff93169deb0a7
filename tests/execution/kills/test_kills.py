"""A search that is killed, at any moment and in any part, goes on with the same command, and has lost nothing.

What must be true is in `studies/kills/killing.py`. `studies/kills/run.py` kills 50 times.
"""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
from killing import LATE, SURVIVABLE, Moment, moments, victim

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

FOUR = (
    Moment("training", "worker", 0.02),
    Moment("stage write", "fork server", 0.01),
    Moment("database write", "driver", 0.0),
    Moment("stage write", "all at once", 0.0),
)
FOUR_MORE = (
    Moment("measurement", "relay", 0.05),
    Moment("export", "worker", 0.1),
    Moment("dashboard write", "group", 0.0, at_most_s=20),
    Moment("study", "driver", 0.1),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_kills_lose_nothing(tmp_path):
    """Worker, fork server, driver, and all at once, in the middle of writing."""
    with victim(tmp_path, budget_s=600) as study:
        for moment in FOUR:
            study.kill(moment)
        study.finish()

    assert study.faults == []
    assert study.kills.total() == len(FOUR)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_kills_lose_nothing(tmp_path):
    """Also Ray's process that relays, and the group; from the first training to finalization."""
    with victim(tmp_path, budget_s=600) as study:
        for moment in (*FOUR, *FOUR_MORE):
            study.kill(moment)
        study.finish()

    assert study.faults == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_ten_kills_at_random_moments_lose_nothing(tmp_path, seed):
    """Every phase and every target in turn."""
    with victim(tmp_path, budget_s=600) as study:
        for moment in moments(10, seed):
            study.kill(moment)
        study.finish()

    assert study.faults == []


def test_moments_take_every_phase_and_every_target():
    """So that 50 of them leave none out, and the same seed gives the same ones."""
    fifty = moments(50, seed=0)

    assert len({(moment.phase) for moment in fifty}) == 9
    assert {moment.target for moment in fifty} > set(SURVIVABLE)
    assert fifty == moments(50, seed=0) != moments(50, seed=1)


def test_moments_of_late_phases_take_no_other():
    """They come once in minutes: a run of their own has enough of them."""
    assert {moment.phase for moment in moments(6, seed=0, of_phases=LATE)} == set(LATE)


def test_a_stage_that_is_half_written_is_seen(tmp_path):
    """After each kill every file of every stage is compared with its checksum."""
    entry = tmp_path / "study" / "stages" / "entries" / ("a" * 64)
    (entry / "output").mkdir(parents=True)
    (entry / "output" / "model.pt").write_bytes(b"whole")
    (entry / "entry.json").write_text(json.dumps({"files": {"model.pt": hashlib.sha256(b"whole").hexdigest()}}))
    with victim(tmp_path, budget_s=1) as study:
        study._check_entries()
        assert study.faults == []
        (entry / "output" / "model.pt").write_bytes(b"who")
        study._check_entries()

    assert study.faults == [f"stage entry {'a' * 12} is half-written"]
