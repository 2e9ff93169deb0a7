"""A bundle runs without the user's code and gives what it claims; any other bundle is refused for the right reason."""

import contextlib
import functools
from dataclasses import replace

import pytest
import torch

from autocut.deploy.examples import ExampleBatch, read_examples, write_examples
from autocut.deploy.manifest import hash_files, read_manifest
from autocut.deploy.verify import verify_bundle
from autocut.errors import InputError, VerificationError
from autocut.measurement import Interval
from autocut.stages import lowering


def failed_names(verification):
    """Names of the checks that refuse the bundle."""
    return [check.name for check in verification.failed]


@pytest.fixture
def elsewhere(bundle, claim):
    """A bundle measured on another machine: everything is compared except time."""
    claim.cost(bundle, machine="a laptop")
    return bundle


@pytest.fixture(scope="module")
def verified(users_task, new_bundle):
    """The verification of a user's model in a fresh process, and which side of the quiet lock it held when."""
    sides = []

    @contextlib.contextmanager
    def side(name):
        sides.append(name)
        yield
        sides.append(f"end of {name}")

    # Time has a test of its own; here a busy machine must not matter.
    verification = verify_bundle(
        new_bundle(model=users_task.UsersNet()),
        latency_tolerance=0.9,
        alone=functools.partial(side, "alone"),
        working=functools.partial(side, "working"),
    )
    return verification, sides


def test_a_true_bundle_verifies_in_a_fresh_process(verified):
    """Every claim is checked, and each check reports what it found."""
    verification, _ = verified

    verification.require_ok()
    assert verification.ok, [check.message for check in verification.failed]
    names = [check.name for check in verification.checks]
    assert names == [
        "hashes", "no user code", "outputs", "accuracy on examples", "size",
        "latency at batch 1", "latency at batch 16", "cold start", "peak memory",
    ]  # fmt: skip
    assert all(check.message for check in verification.checks)
    assert verification.findings.output_deviation == 0
    assert verification.findings.peak_memory_bytes > 0


@pytest.fixture
def found_at(bundle, monkeypatch):
    """Let each attempt find the latencies that the bundle claims now, times a factor. Real ones depend on other processes."""

    def set_factors(*factors):
        claims = {claim.batch_size: claim for claim in read_manifest(bundle).measurement.cost.latencies}
        measured = {size: iter(factors) for size in claims}

        def measure(candidate, baseline, inputs, *, samples, narrow):
            claim, factor = claims[len(inputs)], next(measured[len(inputs)])
            p50 = claim.p50_ms
            return replace(claim, p50_ms=Interval(factor * p50.value, factor * p50.low, factor * p50.high))

        monkeypatch.setattr("autocut.deploy.verify_process.measure_latency", measure)

    return set_factors


def test_a_claim_of_twice_the_speed_is_refused(bundle, claim, found_at):
    """The tolerance of 25% does not cover half the latency."""
    found_at(1.0, 1.0)
    claim.latency(bundle, 0.5)

    verification = verify_bundle(bundle, in_fresh_process=False)

    assert "latency at batch 16" in failed_names(verification)
    assert all(name.startswith("latency") for name in failed_names(verification))
    assert all(latency.attempts == 2 for latency in verification.findings.latencies if latency.batch_size == 16)
    with pytest.raises(VerificationError, match="latency at batch 16") as caught:
        verification.require_ok()
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(("factors", "attempts"), [((1.0, 1.0), 1), ((3.0, 1.0), 2)])
def test_a_true_claim_of_latency_holds(bundle, found_at, factors, attempts):
    """Within the tolerance, or at the second attempt: a neighbour may disturb the first."""
    found_at(*factors)

    verification = verify_bundle(bundle, in_fresh_process=False)

    assert verification.ok, [check.message for check in verification.failed]
    assert {latency.attempts for latency in verification.findings.latencies} == {attempts}


def test_another_machine_is_no_failure(bundle, claim):
    """The latency is then not compared, and the check says so."""
    claim.latency(bundle, 0.01)
    claim.cost(bundle, machine="a laptop")

    verification = verify_bundle(bundle, in_fresh_process=False)

    assert verification.ok
    assert "measured on another machine" in next(
        check.message for check in verification.checks if check.name == "latency at batch 1"
    )


def test_other_weights_under_the_same_claims_are_refused(elsewhere, claim):
    """A forger can adapt the hashes, but not the outputs."""
    torch.manual_seed(1)
    other = torch.nn.Sequential(torch.nn.Linear(32, 512), torch.nn.ReLU(), torch.nn.Linear(512, 4))
    stored = read_examples(elsewhere / "examples.npz")
    changed = [ExampleBatch(batch.inputs, batch.targets, other(batch.inputs).detach().numpy()) for batch in stored]
    write_examples(elsewhere / "examples.npz", changed)
    claim.rewrite(elsewhere, files=hash_files(elsewhere))

    verification = verify_bundle(elsewhere, in_fresh_process=False)

    assert "outputs" in failed_names(verification)


def test_a_false_accuracy_is_refused(elsewhere, claim):
    """On the examples, by the known score of the kind."""
    false_claim = read_manifest(elsewhere).verification.model_copy(update={"accuracy": 1.0})
    claim.rewrite(elsewhere, verification=false_claim)

    assert failed_names(verify_bundle(elsewhere, in_fresh_process=False)) == ["accuracy on examples"]


def test_a_false_size_is_refused(elsewhere, claim):
    """To the byte."""
    claim.cost(elsewhere, size_bytes=read_manifest(elsewhere).measurement.cost.size_bytes - 1)

    assert failed_names(verify_bundle(elsewhere, in_fresh_process=False)) == ["size"]


def test_the_whole_split_is_compared_when_it_is_given(elsewhere, tmp_path):
    """48 examples here; fewer of them are not the claimed split."""
    stored = read_examples(elsewhere / "examples.npz")
    write_examples(tmp_path / "whole.npz", stored)
    write_examples(tmp_path / "part.npz", stored[:1])

    whole = verify_bundle(elsewhere, examples=tmp_path / "whole.npz", in_fresh_process=False)
    part = verify_bundle(elsewhere, examples=tmp_path / "part.npz", in_fresh_process=False)

    assert whole.ok
    assert "accuracy on test" in [check.name for check in whole.checks]
    assert failed_names(part) == ["accuracy on test"]


def test_a_metric_of_the_users_own_compares_outputs_only(elsewhere, claim):
    """The user's code is not run, and the check says so."""
    claim.rewrite(elsewhere, verification=read_manifest(elsewhere).verification.model_copy(update={"kind": None, "accuracy": None}))

    verification = verify_bundle(elsewhere, in_fresh_process=False)

    assert verification.ok
    assert "task's own code" in next(check.message for check in verification.checks if check.name == "accuracy on examples")


def test_a_model_that_the_runtime_refuses_fails_with_its_reason(elsewhere, claim):
    """The manifest is in order, the model file is not a model."""
    victim = max((path for path in (elsewhere / "model").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    victim.write_bytes(b"no model at all")
    claim.rewrite(elsewhere, files=hash_files(elsewhere))

    verification = verify_bundle(elsewhere, in_fresh_process=False)

    assert failed_names(verification) == ["runs"]
    assert victim.name in verification.failed[0].message


def test_the_machine_is_needed_alone_for_what_is_measured_only(verified):
    """Importing, hashing and replaying let other processes work."""
    _, sides = verified

    assert sides == [part for name in ("working", "working", "alone", "working") for part in (name, f"end of {name}")]


def test_in_this_process_there_is_no_first_start(bundle):
    """The libraries are loaded and the caches are warm, so a number would be wrong."""
    assert verify_bundle(bundle, in_fresh_process=False, latency_tolerance=0.9).findings.cold_start_ms is None


def test_a_hang_ends_with_the_timeout(bundle):
    """And fails the bundle."""
    verification = verify_bundle(bundle, timeout_s=0.05)

    assert failed_names(verification) == ["runs"]
    assert "no answer within 0.05 s" in verification.failed[0].message


def test_a_tolerance_that_allows_everything_is_refused(bundle):
    """A check that cannot fail is none."""
    with pytest.raises(InputError, match="latency tolerance"):
        verify_bundle(bundle, latency_tolerance=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "mode"), [(dtype, mode) for dtype, mode in lowering.pairs() if not lowering.infeasible_reason(dtype, mode)]
)
def test_every_feasible_pair_verifies_in_a_fresh_process(new_bundle, dtype, mode):
    """No pair is listed here. Code that Inductor generates while loading does not count as the user's."""
    verification = verify_bundle(new_bundle(dtype=dtype, mode=mode))

    assert verification.ok, [check.message for check in verification.failed]
