"""A bundle runs without the user's code and gives what it claims; any other bundle is refused for the right reason."""

import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from autocut.deploy.claims import Findings, FoundLatency, judge, latency_agrees
from autocut.deploy.examples import ExampleBatch, read_examples, write_examples
from autocut.deploy.fresh_process import FreshProcess, clean_environment
from autocut.deploy.manifest import hash_files, read_manifest
from autocut.deploy.replay import deviation
from autocut.deploy.verify import verify_bundle
from autocut.deploy.verify_process import foreign_modules
from autocut.errors import InputError, VerificationError
from autocut.measurement import Interval, Latency
from autocut.stages import lowering
from autocut.stages.quantize import output_tolerance


def failed_names(verification):
    """Names of the checks that refuse the bundle."""
    return [check.name for check in verification.failed]


@pytest.fixture
def elsewhere(bundle, claim):
    """A bundle measured on another machine: everything is compared except time."""
    claim.cost(bundle, machine="a laptop")
    return bundle


@pytest.fixture(scope="module")
def users_task(tmp_path_factory):
    """A module of the user's with the model class in it, importable here only."""
    folder = tmp_path_factory.mktemp("users_code")
    (folder / "users_task.py").write_text(
        "from torch import nn\n\n\nclass UsersNet(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(32, 512), nn.Linear(512, 4)\n\n"
        "    def forward(self, x):\n        return self.b(self.a(x).relu())\n"
    )
    sys.path.insert(0, str(folder))
    yield importlib.import_module("users_task")
    sys.path.remove(str(folder))
    del sys.modules["users_task"]


@pytest.fixture(scope="module")
def verified(users_task, new_bundle):
    """The bundle of a user's model and its verification in a fresh process."""
    folder = new_bundle(model=users_task.UsersNet())
    # Time has a test of its own; here a busy machine must not matter.
    return folder, verify_bundle(folder, latency_tolerance=0.9)


def test_a_true_bundle_verifies_in_a_fresh_process(verified):
    """Every claim is checked, and each check reports what it found."""
    _, verification = verified

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


def test_the_fresh_process_cannot_import_the_users_code(users_task, monkeypatch, tmp_path):
    """Neither from the working folder nor from PYTHONPATH."""
    folder = str(next(iter(users_task.__spec__.origin.rsplit("/", 1))))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", folder)
    code = "import importlib.util as u, sys, autocut; sys.exit(3 if u.find_spec('users_task') else 0)"

    assert importlib.util.find_spec("users_task") is not None
    assert subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=clean_environment(), check=False).returncode == 0


def test_user_code_in_the_process_would_be_seen(users_task):
    """The module that this process did import is foreign; autocut and torch are not."""
    found = foreign_modules()

    assert "users_task" in found
    assert not {"torch", "autocut", "json", "numpy"} & set(found)


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


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('no kernel')", "exit code 1: ValueError: no kernel"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    ],
)
def test_a_process_that_dies_is_reported_with_its_last_line(code, reason):
    """A runtime may raise any error or crash the process, before the question or after it."""
    with FreshProcess(command=(sys.executable, "-c", code)) as process:
        process.start()
        process.wait_until_ready(30.0)
        assert process.ask({}, 30.0) == reason
    ready = "import os, sys; os.close(int(sys.argv[4])); input()"
    with FreshProcess(command=(sys.executable, "-c", f"{ready}; {code}")) as process:
        assert process.ask({}, 30.0) == reason


def test_the_fresh_process_starts_without_a_compiler_cache(bundle, monkeypatch, tmp_path):
    """A warm cache would make the first start on a server look short."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    code = "import os; cache = os.environ['TORCHINDUCTOR_CACHE_DIR']; raise SystemExit(f'{cache} {os.path.exists(cache)}')"
    with FreshProcess(command=(sys.executable, "-c", code)) as process:
        verification = verify_bundle(bundle, process=process)

    cache, exists = verification.failed[0].found.removeprefix("exit code 1: ").split()
    assert Path(cache) != tmp_path
    assert exists == "False"


def test_a_process_that_was_started_before_imports_and_waits(bundle):
    """It is ready before there is a question; without a question it ends with its block."""
    with FreshProcess() as process:
        process.start()
        process.wait_until_ready(120.0)
        assert os.read(process._ready, 1) == b""
        assert process._process.poll() is None
        assert verify_bundle(bundle, process=process, latency_tolerance=0.9).ok
    with FreshProcess() as unasked:
        unasked.start()
    assert unasked._process.poll() is not None


def test_a_fork_that_does_not_answer_costs_no_verification(bundle, tmp_path):
    """Its process is ended, and the bundle is verified in another one."""
    question = {"bundle": str(bundle), "batch_size": 16, "layouts": [(1, 1)], "processors": 1, "most_s": 60.0}
    with FreshProcess() as process:
        process.start()
        process.wait_until_ready(120.0)
        first = process._process
        assert process.ask_fork(question, tmp_path / "layouts.json", 0.0) == "no answer within 0 s"
        assert first.poll() is not None
        assert verify_bundle(bundle, process=process, latency_tolerance=0.9).ok


def test_the_machine_is_needed_alone_for_what_is_measured_only(bundle):
    """Importing, hashing and replaying let other processes work."""
    sides = []

    @contextlib.contextmanager
    def side(name):
        sides.append(name)
        yield
        sides.append(f"end of {name}")

    verification = verify_bundle(
        bundle, latency_tolerance=0.9, alone=functools.partial(side, "alone"), working=functools.partial(side, "working")
    )

    assert verification.ok
    assert sides == [part for name in ("working", "working", "alone", "working") for part in (name, f"end of {name}")]


def test_a_cold_start_is_reported_as_a_first_start_and_never_refused(made):
    """Minutes of compiling break no claim, but a reader must not take them for the warm number."""
    checks = judge(read_manifest(made), Findings(cold_start_ms=60_000.0))
    check = next(check for check in checks if check.name == "cold start")

    assert check.ok
    assert check.message.startswith(
        "cold start (first start, no compiler cache) is 60000 ms, at export, caches included, it was 5 ms"
    )


def test_in_this_process_there_is_no_first_start(bundle):
    """The libraries are loaded and the caches are warm, so a number would be wrong."""
    assert verify_bundle(bundle, in_fresh_process=False, latency_tolerance=0.9).findings.cold_start_ms is None


_CHILD = """
import sys, time
from autocut.measure.parent_death import die_with
die_with(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(120)
"""
_PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())], start_new_session=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_the_fresh_process_dies_with_the_worker_that_asked(tmp_path):
    """It leads a session of its own, so nothing else would end it, and it would disturb the next measurement."""
    command = [sys.executable, "-c", _PARENT, _CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment(), text=True) as worker:
        assert worker.stdout.readline() == "ready\n"
        worker.kill()
        # The child holds the other end of the pipe, which closes when the child ends.
        worker.communicate(timeout=60)


def test_a_process_whose_parent_is_gone_does_not_start(tmp_path):
    """The worker may die while the fresh process imports torch; here the parent is this process, and process 0 was asked for."""
    with FreshProcess(command=(sys.executable, "-c", _CHILD, "0")) as process:
        ended = process.ask({}, 60.0)

    assert ended == "exit code 1: process 0, which started this work, has ended"


def test_a_hang_ends_with_the_timeout(bundle):
    """And fails the bundle."""
    verification = verify_bundle(bundle, timeout_s=0.05)

    assert failed_names(verification) == ["runs"]
    assert "no answer within 0.05 s" in verification.failed[0].message


def test_a_tolerance_that_allows_everything_is_refused(bundle):
    """A check that cannot fail is none."""
    with pytest.raises(InputError, match="latency tolerance"):
        verify_bundle(bundle, latency_tolerance=1.0)


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


def test_an_int8_onnx_bundle_verifies_in_a_fresh_process(new_bundle):
    """Another format, and integers."""
    verification = verify_bundle(new_bundle(dtype="int8_static", mode="onnxruntime"), latency_tolerance=0.9)

    assert verification.ok, [check.message for check in verification.failed]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "mode"), [(dtype, mode) for dtype, mode in lowering.pairs() if not lowering.infeasible_reason(dtype, mode)]
)
def test_every_feasible_pair_verifies_in_a_fresh_process(new_bundle, dtype, mode):
    """No pair is listed here. Code that Inductor generates while loading does not count as the user's."""
    verification = verify_bundle(new_bundle(dtype=dtype, mode=mode))

    assert verification.ok, [check.message for check in verification.failed]


def test_module_type_is_what_foreign_modules_expects(monkeypatch):
    """A module without a file (built in, or made on the fly) is skipped."""
    monkeypatch.setitem(sys.modules, "made_on_the_fly", ModuleType("made_on_the_fly"))

    assert "made_on_the_fly" not in foreign_modules()
