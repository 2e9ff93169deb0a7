"""What the whole machine serves, in a bundle: claimed, verified, served; and the studies in which it is not measured."""

import json
import re
from dataclasses import replace

import pytest

from autocut.deploy import capacity as capacity_module
from autocut.deploy.capacity import measure_capacity, reason_to_leave_out, untouched_capacity
from autocut.deploy.claims import capacity_agrees
from autocut.deploy.fresh_process import FreshProcess
from autocut.deploy.layouts import processors_here
from autocut.deploy.manifest import read_manifest, render
from autocut.deploy.readme import readme
from autocut.deploy.serving import serving_files
from autocut.deploy.verify import verify_bundle
from autocut.errors import BundleError
from autocut.measure.quiet import QuietLock
from autocut.measurement import Capacity, Interval, Layout
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.search.jobs import ScoringPlan
from autocut.task.loading import load_task


def a_layout(copies, threads, per_s, yardstick=1000.0):
    """A layout that serves `per_s`, give or take 1%."""
    return Layout(copies, threads, Interval(per_s, 0.99 * per_s, 1.01 * per_s), yardstick)


def claiming(per_s, yardstick=1000.0, copies=2, processors=None):
    """A capacity of which only one layout is known."""
    layouts = (a_layout(copies, 1, per_s, yardstick),)
    return Capacity(16, processors or processors_here(), layouts, (a_layout(1, 1, 10.0),))


def whole_machine(verification):
    """The check of the claim; None where there is none."""
    return next((check for check in verification.checks if check.name == "whole machine"), None)


def test_a_claim_that_this_machine_keeps_is_verified(bundle, claim):
    """The best layout runs again in fresh processes."""
    claim.capacity(bundle, claiming(per_s=0.001))

    check = whole_machine(verify_bundle(bundle, latency_tolerance=0.9))

    assert check.ok
    assert re.search(r"whole machine serves [\d,.]+/s, 0.001/s as 2 copies x 1 thread was claimed \(tolerance 90%", check.message)


def test_a_claim_that_no_machine_keeps_is_refused(bundle, claim):
    """It was tried twice, as measured and corrected."""
    claim.capacity(bundle, claiming(per_s=1e12))

    verification = verify_bundle(bundle, latency_tolerance=0.9)

    assert not whole_machine(verification).ok
    assert whole_machine(verification) in verification.failed
    assert whole_machine(verification).message.endswith("attempt 2)")


def test_a_claim_of_another_machine_is_not_compared(bundle, claim):
    """It says so."""
    claim.capacity(bundle, claiming(per_s=1e12, processors=4096))

    check = whole_machine(verify_bundle(bundle, latency_tolerance=0.9))

    assert check.ok
    assert "was not compared: it was measured on 4,096 processors" in check.message


def test_a_bundle_of_an_older_version_claims_nothing_and_keeps_its_digest(made):
    """Its manifest does not name what it does not know, so the digest that a study has of it stays."""
    document = json.loads((made / "manifest.json").read_text())

    assert not {"copies", "threads"} & document.keys()
    assert not {"capacity", "capacity_note"} & document["measurement"].keys()
    assert read_manifest(made).digest == document["content_sha256"]
    assert read_manifest(made).served_as == (1, 1)
    assert whole_machine(verify_bundle(made, latency_tolerance=0.9)) is None


def test_copies_and_threads_must_be_those_of_the_measurement(bundle, claim):
    """A manifest that says two things says nothing."""
    manifest = claim.with_capacity(read_manifest(bundle), claiming(per_s=100.0)).model_copy(update={"copies": 3})
    (bundle / "manifest.json").write_text(render(manifest), encoding="utf-8")

    with pytest.raises(BundleError, match="copies and threads must be those of the best layout, 2 copies x 1 thread, got 3 x 1"):
        read_manifest(bundle)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layouts": ()}, "must have layouts of this model"),
        ({"untouched": ()}, "must have layouts of this model and of the untouched one"),
        ({"untouched": (a_layout(1, 1, 10.0, yardstick=0.0),)}, "every layout must serve something, got 1 copy x 1 thread"),
    ],
)
def test_a_manifest_with_an_impossible_capacity_is_refused_in_words(bundle, claim, change, told):
    """Whoever sends a bundle may write anything; nothing is divided by zero."""
    manifest = claim.with_capacity(read_manifest(bundle), claiming(per_s=100.0))
    measurement = replace(manifest.measurement, capacity=replace(claiming(per_s=100.0), **change))
    text = render(manifest.model_copy(update={"measurement": measurement}))
    (bundle / "manifest.json").write_text(text, encoding="utf-8")

    with pytest.raises(BundleError, match=told):
        read_manifest(bundle)


@pytest.mark.parametrize(
    ("per_s", "yardstick", "agrees"),
    [(100, 1000, True), (81, 1000, True), (70, 1000, False), (70, 800, True), (1000, 1000, True), (81, 1200, True)],
)
def test_what_a_machine_serves_may_be_a_quarter_less_as_measured_or_corrected(per_s, yardstick, agrees):
    """A slower hour is no failure; nor is a faster one in which the model stays as it was."""
    assert capacity_agrees(a_layout(2, 1, 100), a_layout(2, 1, per_s, yardstick)) is agrees


def test_the_readme_and_the_server_use_the_best_layout(made, claim):
    """Latency is shown at one copy, and the machine beside it."""
    capacity = Capacity(16, 4, (a_layout(1, 1, 250), a_layout(2, 2, 800)), (a_layout(1, 1, 50), a_layout(4, 1, 140)))
    manifest = claim.with_capacity(read_manifest(made), capacity)

    text, server = readme(made / "model", manifest), serving_files(made / "model", manifest)["serve.py"]

    assert "| whole machine, batch 16, 2 copies x 2 threads | 800/s | 792/s to 808/s |" in text
    assert "| whole machine, batch 16, 4 copies x 1 thread, untouched model | 140/s | 139/s to 141/s |" in text
    assert "one call at a time in each of 2 processes with 2 threads (`--copies 2`)" in text
    assert "copies=2)" in server
    assert "torch.set_num_threads(2)" in server


@pytest.fixture
def pipeline(tmp_path):
    """Of the embedded digits task."""
    return Pipeline(StageContext(load_task(None), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks")))


def test_the_untouched_model_and_an_artifact_are_measured_in_every_layout(pipeline, monkeypatch):
    """The untouched model once a study, with its own code; both by the processors of this machine."""
    monkeypatch.setattr(capacity_module, "processors_here", lambda: 2)
    reference = pipeline.cost(pipeline.baseline, "fp32", "eager")
    artifact = pipeline.artifact(pipeline.baseline, "fp32", "onnxruntime")
    with FreshProcess(1) as fresh:
        found = measure_capacity(pipeline, artifact, "onnxruntime", fresh, reference, 300.0, float("inf"))
    again = untouched_capacity(pipeline, reference, 300.0)

    assert found.note is None
    assert [(layout.copies, layout.threads) for layout in found.capacity.layouts] == [(1, 1), (1, 2), (2, 1)]
    assert [(layout.copies, layout.threads) for layout in found.capacity.untouched] == [(1, 1), (1, 2), (2, 1)]
    assert again.capacity.untouched == found.capacity.untouched
    assert all(layout.per_s.low > 0 for layout in (*found.capacity.layouts, *found.capacity.untouched))


def test_a_slow_model_and_a_short_search_are_left_out_with_a_reason(pipeline):
    """One answer for a whole study, because dollars of its points are compared."""
    reference = pipeline.cost(pipeline.baseline, "fp32", "eager")
    busiest = replace(reference.busiest, p50_ms=Interval(2600.0, 2600.0, 2600.0))

    assert reason_to_leave_out(pipeline, reference, 300.0) is None
    assert reason_to_leave_out(pipeline, reference, 60.0) == "a search of less than 240 s has no time to try layouts"
    slow = reason_to_leave_out(pipeline, replace(reference, latencies=(busiest,)), 300.0)
    assert slow == "a call of the untouched model takes 2.6 s, too long to try layouts"
    assert untouched_capacity(pipeline, reference, 60.0).capacity is None
    pipeline.runner.context = replace(pipeline.runner.context, scoring=ScoringPlan(100, 1000, 0.25))
    assert reason_to_leave_out(pipeline, reference, 300.0) == "a model of this task takes long to measure, too long to try layouts"
