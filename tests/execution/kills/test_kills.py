"""A search that is killed, at any moment and in any part, goes on with the same command, and has lost nothing.

What must be true is in `studies/kills/killing.py`. `studies/kills/run.py` kills 50 times.
"""

from __future__ import annotations

import sys

import pytest
from killing import SURVIVABLE, Moment, moments, victim

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
