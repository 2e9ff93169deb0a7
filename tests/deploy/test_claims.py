"""What a bundle claims is compared with what was found: which difference refuses it, and which does not."""

import numpy as np
import pytest
import torch

from autocut.deploy.claims import Findings, FoundLatency, judge, latency_agrees, latency_word
from autocut.deploy.examples import ExampleBatch
from autocut.deploy.manifest import read_manifest
from autocut.deploy.replay import deviation
from autocut.measurement import Interval, Latency
from autocut.stages.quantize import output_tolerance


def test_a_cold_start_is_reported_as_a_first_start_and_never_refused(made):
    """Minutes of compiling break no claim, but a reader must not take them for the warm number."""
    checks = judge(read_manifest(made), Findings(cold_start_ms=60_000.0))
    check = next(check for check in checks if check.name == "cold start")

    assert check.ok
    assert check.message.startswith(
        "cold start (first start, no compiler cache) is 60000 ms; at export it was 5 ms, caches included"
    )


def test_what_was_not_measured_at_export_is_told_as_that(made):
    """Nothing was "not claimed, caches included"."""
    checks = judge(read_manifest(made), Findings(peak_memory_bytes=32 * 2**20))
    check = next(check for check in checks if check.name == "peak memory")

    assert check.message == "peak memory is 32.0 MiB; it was not measured at export (reported, not judged)"


def a_latency(p50=10.0, spread=0.02, reference=1.0):
    """A claimed latency."""
    interval = Interval(p50, p50 * (1 - spread), p50 * (1 + spread))
    return Latency(1, 64, interval, None, None, p50, Interval(1, 1, 1), reference)


@pytest.mark.parametrize(("factor", "agrees"), [(0.5, True), (0.85, True), (1.0, True), (1.2, True), (1.4, False), (2.0, False)])
@pytest.mark.parametrize("drift", [1.0, 5.0])
def test_a_machine_that_is_slower_today_is_no_failure(factor, agrees, drift):
    """Model and reference workload slow down alike. A claim of half the latency fails at any speed; a faster model is fine."""
    found = 10.0 * factor * drift

    assert latency_agrees(a_latency(), Interval(found, found * 0.98, found * 1.02), drift) is agrees


def test_a_neighbour_that_slows_only_the_reference_workload_is_no_failure():
    """The latency is as claimed, so it needs no correction."""
    assert latency_agrees(a_latency(), Interval(10.0, 9.8, 10.2), 2.0)
    assert not latency_agrees(a_latency(), Interval(20.0, 19.6, 20.4), 1.0)


@pytest.mark.parametrize(
    ("found", "reference", "word"),
    [
        (10.3, 1.0, "as claimed"),
        (8.0, 0.8, "as claimed, corrected by the reference workload"),
        (20.0, 2.0, "as claimed, corrected by the reference workload"),
        (10.0, 2.0, "as claimed"),
        (8.0, 1.0, "faster than claimed"),
        (12.0, 1.0, "slower than claimed"),
    ],
)
def test_a_latency_is_compared_as_measured_or_corrected_by_the_reference_workload(found, reference, word):
    """The machine may be faster or slower today, and a neighbour may slow the reference workload alone."""
    assert latency_word(a_latency(), Interval(found, found * 0.98, found * 1.02), reference) == word


def test_a_process_that_failed_is_one_failed_check(made):
    """With its reason, and no other check."""
    (check,) = judge(read_manifest(made), Findings(failure="killed by SIGSEGV"))

    assert not check.ok
    assert "SIGSEGV" in check.message


def test_programs_get_the_numbers_of_a_check_in_full(made):
    """Text has four digits of an accuracy: two models could not be told apart by it."""
    manifest = read_manifest(made)
    cost, claimed = manifest.measurement.cost, manifest.verification.accuracy
    found = claimed - 0.000123456
    timed = tuple(FoundLatency(one.batch_size, one.p50_ms, one.yardstick_ms, 1) for one in cost.latencies)
    findings = Findings(
        output_deviation=0.000321, output_tolerance=0.001, examples_accuracy=found, size_bytes=cost.size_bytes + 1,
        machine=cost.machine, latencies=timed, cold_start_ms=12.3456,
    )  # fmt: skip

    numbers = {check.name: (check.claim_value, check.found_value) for check in judge(manifest, findings)}

    assert numbers["accuracy on examples"] == (claimed, found)
    assert numbers["outputs"] == (0.001, 0.000321)
    assert numbers["size"] == (cost.size_bytes, cost.size_bytes + 1)
    assert numbers["latency at batch 16"] == (cost.latencies[1].p50_ms.value,) * 2
    assert numbers["cold start"] == (cost.cold_start_ms, 12.3456)
    assert numbers["no user code"] == (None, None)


def test_a_batch_size_that_was_not_timed_fails(made):
    """A claim without a finding fails."""
    manifest = read_manifest(made)
    cost = manifest.measurement.cost
    findings = Findings(
        output_deviation=0.0, examples_accuracy=manifest.verification.accuracy, size_bytes=cost.size_bytes, machine=cost.machine,
        latencies=(FoundLatency(1, cost.latencies[0].p50_ms, cost.latencies[0].yardstick_ms, 1),),
    )  # fmt: skip

    assert [check.name for check in judge(manifest, findings) if not check.ok] == ["latency at batch 16"]


def test_deviation_is_relative_to_the_largest_output():
    """A NaN or a shape that the reference does not have exceeds every tolerance."""
    reference = ExampleBatch(torch.zeros(2, 1), np.zeros(2), np.array([[4.0], [-8.0]], np.float32))

    assert deviation([reference.outputs], [reference]) == 0
    assert deviation([reference.outputs + 0.8], [reference]) == pytest.approx(0.1)
    assert deviation([reference.outputs * np.nan], [reference]) == np.inf
    assert deviation([reference.outputs[:1]], [reference]) == np.inf


def test_tolerance_grows_with_coarser_numbers():
    """A dtype that does not exist yet has a tolerance too."""
    assert (
        output_tolerance("fp32") < output_tolerance("bf16") < output_tolerance("int8_static") == output_tolerance("int3_new") < 0.1
    )
