"""The study of verified fronts: what it reads from the document of `autocut verify`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "studies" / "fronts_verified" / "run.py"


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
        a_check("latency at batch 1", "0.1 ms [0.09, 0.11]", "0.12 ms [0.11, 0.13]"),
        a_check("latency at batch 8", "0.1 ms [0.09, 0.11]", "0.07 ms [0.06, 0.08]"),
        a_check("latency at batch 32", "0.1 ms [0.09, 0.11]", "0.3 ms [0.2, 0.4]", ok=False, message="too slow"),
        a_check("latency at batch 64", "0.1 ms [0.09, 0.11]", "not compared"),
    ]
    found = study.read(7, {"ok": False, "checks": checks})

    assert (found.trial, found.ok, found.failed) == (7, False, ("too slow",))
    assert found.deviation == pytest.approx(0.0028)
    assert found.outputs == 0.002
    assert found.latencies == ("overlaps", "faster", "slower")


def test_a_latency_is_compared_as_measured_or_corrected_by_the_reference_workload(study):
    """The machine was half as fast when the claim was measured."""
    message = "latency is 0.05 ms (tolerance 25%; the reference workload takes 0.50 times as long as at export)"

    assert study.latency_word("0.1 ms [0.09, 0.11]", "0.05 ms [0.045, 0.055]", message) == "overlaps"
    assert study.latency_word("0.1 ms [0.09, 0.11]", "0.05 ms [0.045, 0.055]", "no word of it") == "faster"
