"""The study of verified fronts: what it reads from the document of `autocut verify`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "studies" / "fronts_verified" / "run.py"


TOO_SLOW = "found, 0.1 ms was claimed: slower than claimed (tolerance 25%)"


@pytest.fixture(scope="module")
def study():
    """The study's functions."""
    spec = importlib.util.spec_from_file_location("fronts_verified_run", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def a_check(name, claim, found, ok=True, message="told"):
    """One check as the document has it."""
    return {"name": name, "claim": claim, "found": found, "ok": ok, "message": message}


def test_deviations_and_overlaps_are_those_of_the_checks(study):
    """The largest deviation counts; a latency may overlap, be faster, or be slower; what is not claimed is not compared."""
    checks = [
        a_check("outputs", "<= 0.05", "0.002", message="outputs deviate by 0.002 of the largest output from the stored ones"),
        a_check("accuracy on examples", "0.9806", "0.9778"),
        a_check("accuracy on test", "not claimed", "not compared"),
        a_check(
            "latency at batch 1",
            "0.1 ms [0.09, 0.11]",
            "0.12 ms [0.11, 0.13]",
            message="found, 0.1 ms was claimed: as claimed (tolerance 25%)",
        ),
        a_check(
            "latency at batch 8",
            "0.1 ms [0.09, 0.11]",
            "0.07 ms [0.06, 0.08]",
            message="found, 0.1 ms was claimed: faster than claimed (tolerance 25%)",
        ),
        a_check("latency at batch 32", "0.1 ms [0.09, 0.11]", "0.3 ms [0.2, 0.4]", ok=False, message=TOO_SLOW),
        a_check("latency at batch 64", "0.1 ms [0.09, 0.11]", "not compared"),
    ]
    found = study.read(7, {"ok": False, "checks": checks})

    assert (found.trial, found.ok, found.failed) == (7, False, (TOO_SLOW,))
    assert found.deviation == pytest.approx(0.0028)
    assert found.outputs == 0.002
    assert found.latencies == ("overlaps", "faster", "slower")


def test_a_message_without_a_verdict_is_no_overlap(study):
    """A document of another version must not count as a success."""
    with pytest.raises(ValueError, match="no verdict"):
        study.latency_word("latency is 0.05 ms (tolerance 25%)")
