"""No input of a stranger gives a traceback, hangs, or loses anything. `studies/fuzz/run.py` hands in ten thousand."""

from __future__ import annotations

import pytest
from hostile_runs import FaultFound, run
from hostile_targets import TARGETS, home, quick
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

INPUTS = 20


@pytest.mark.parametrize("name", TARGETS)
def test_a_hostile_input_is_refused_in_words(finished_study, name):
    """Exit code 0, 1 or 2, and an error that a person can read: the same inputs at every run."""

    @seed(0)
    @settings(max_examples=INPUTS, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.data())
    def hand_in(data):
        with home(finished_study, finished_study / "bundles/trial-0007") as at:
            TARGETS[name](data, at)

    with quick():
        hand_in()


def test_the_fuzzer_sees_a_bug(finished_study, monkeypatch):
    """A fuzzer that finds nothing must be able to."""
    monkeypatch.setattr("autocut.study.Study.front", lambda _: [].pop())

    with pytest.raises(FaultFound, match="exit 3: IndexError"):
        run(["front", str(finished_study)])


def test_the_fuzzer_sees_a_control_character(finished_study, monkeypatch):
    """A name in a file must not move the cursor of a terminal."""
    monkeypatch.setattr("autocut.console.printable", str)

    with pytest.raises(FaultFound, match="on the terminal"):
        run(["check", "\x1b[2J.py"])
