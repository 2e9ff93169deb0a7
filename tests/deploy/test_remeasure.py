"""Claims stay, and what is found on this machine stands beside them."""

import dataclasses
import shutil

import pytest

from autocut.bill import UNTOLD, Bill
from autocut.deploy import remeasure as room
from autocut.deploy.manifest import economics_of, read_manifest
from autocut.deploy.remeasure import Conditions, remeasure_bundle, remeasure_study, untouched_artifact
from autocut.deploy.rerun import Rerun, RerunSide
from autocut.errors import BundleError, InputError, NoResultError, UnknownNameError
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Interval
from autocut.pipeline.stage_cache import StageCache
from autocut.price import Host, Price
from autocut.recipe import UNTOUCHED, Recipe
from autocut.stages import lowering
from autocut.study import create_study
from autocut.study.records import StageRun, utc_now

GENOA = Host("AMD EPYC 9R14", "AuthenticAMD 25/17", "x86_64", 2)
UNKNOWN = Host("a laptop", "", "aarch64", 8)


@pytest.fixture
def measured(monkeypatch):
    """Replace the fresh process by one that takes twice as long as was claimed; returns how it was asked."""
    asked = []

    def run(bundle, threads, *, untouched, shapes, alone, working):
        claim = read_manifest(bundle).measurement.cost
        latencies = tuple(
            dataclasses.replace(one, p50_ms=Interval(*(2 * end for end in dataclasses.astuple(one.p50_ms))))
            for one in claim.latencies
        )
        asked.append((bundle.name, threads, untouched))
        return Rerun(None, machine_fingerprint(), RerunSide(latencies, None, 0.0, 1e-3, claim.size_bytes, 7.0))

    monkeypatch.setattr(room, "rerun", run)
    return asked


@pytest.fixture
def study(bundle, tmp_path):
    """A study with one verified bundle, of trial 1, and the untouched model among its stages."""
    opened = create_study(
        tmp_path / "study", name="tiny", task_fingerprint="t", space_json="{}", objectives={"accuracy": "maximize"}, seed=0
    )
    measurement = read_manifest(bundle).measurement
    for trial, recipe in enumerate((UNTOUCHED, Recipe({"compile.mode": "onnxruntime"}))):
        opened.complete(None, recipe, {}, {}, {"accuracy": 0.9}, measurement)
        stored = shutil.copytree(bundle, opened.folder / "bundles" / f"trial-{trial}") if trial else None
        opened.record_final(trial, measurement, {"accuracy": 0.9}, bundle=stored, bundle_sha256="0", verified=True)
    yield opened
    opened.close()


def with_price(bundle, claim, instance, usd_per_hour, utilization=1.0):
    """Let the bundle name a price."""
    bill = Bill(Price(instance, usd_per_hour, "2026-01-01", utilization), 2.0, 0.5, 3.0, 0.2)
    claim.rewrite(bundle, economics=economics_of(bill, UNTOLD, None, None))


def test_claim_and_finding_stand_side_by_side(bundle, measured):
    """The bundle is not written to."""
    before = (bundle / "manifest.json").read_bytes()
    found = remeasure_bundle(bundle, Conditions(threads=2))

    claimed, here = found.manifest.measurement.cost.latencies[0], found.found.side.latencies[0]
    assert here.p50_ms.value == 2 * claimed.p50_ms.value
    assert (measured, found.failure, found.has_untouched) == ([(bundle.name, 2, None)], None, False)
    assert any("no speed-ups" in note for note in found.notes)
    assert (bundle / "manifest.json").read_bytes() == before


def test_threads_are_those_of_the_claim_unless_told(bundle, measured):
    """So that the numbers can be compared."""
    assert remeasure_bundle(bundle, Conditions()).threads == read_manifest(bundle).measurement.cost.threads == 1


def test_dollars_are_those_of_the_cheapest_instance_that_fits(bundle, claim, measured, monkeypatch):
    """Not of the machine that the claim was priced for."""
    with_price(bundle, claim, "c7i.large", 0.08925, utilization=0.5)
    monkeypatch.setattr(room, "this_host", lambda: GENOA)
    found = remeasure_bundle(bundle, Conditions())
    busiest = found.found.side.latencies[-1]

    assert (found.price.instance, found.price.utilization) == ("c7a.large", 0.5)
    expected = found.price.usd_per_hour / 3600 / 0.5 * busiest.p50_ms.value / 1e3 / busiest.batch_size * 1e6
    assert found.usd_per_million.value == pytest.approx(expected)
    assert found.usd_per_million.low < found.usd_per_million.value < found.usd_per_million.high


def test_beside_a_claim_stand_dollars_of_the_same_price(bundle, claim, measured, monkeypatch):
    """The call takes twice as long here, so they are twice as many, whatever this machine costs."""
    with_price(bundle, claim, "c7i.large", 0.08925, utilization=0.5)
    monkeypatch.setattr(room, "this_host", lambda: GENOA)
    found = remeasure_bundle(bundle, Conditions())

    busiest = found.manifest.measurement.cost.busiest
    expected = 0.08925 / 3600 / 0.5 * 2 * busiest.p50_ms.value / 1e3 / busiest.batch_size * 1e6
    assert (found.claimed_price.instance, found.usd_at_claimed_price.value) == ("c7i.large", pytest.approx(expected))
    assert found.usd_per_million.value != found.usd_at_claimed_price.value


@pytest.mark.parametrize(("machine", "kept"), [(machine_fingerprint(), True), ("another one", False)])
def test_a_price_of_ones_own_is_kept_on_the_machine_that_it_was_given_for(bundle, claim, measured, monkeypatch, machine, kept):
    """Then there is one price for both sides. Another machine has another price."""
    with_price(bundle, claim, "a machine of your own", 0.1)
    measurement = read_manifest(bundle).measurement
    cost = dataclasses.replace(measurement.cost, machine=machine)
    claim.rewrite(bundle, measurement=dataclasses.replace(measurement, cost=cost))
    monkeypatch.setattr(room, "this_host", lambda: GENOA)

    assert remeasure_bundle(bundle, Conditions()).price.instance == ("a machine of your own" if kept else "c7a.large")


def test_dollars_that_may_not_hold_are_told(bundle, claim, measured, monkeypatch):
    """The sheet has no instance like this machine, so the bundle's own price stays."""
    with_price(bundle, claim, "c7i.large", 0.08925)
    monkeypatch.setattr(room, "this_host", lambda: UNKNOWN)
    found = remeasure_bundle(bundle, Conditions())

    assert found.price.instance == "c7i.large"
    assert any("dollars may not" in note for note in found.notes)


def test_without_any_price_there_are_no_dollars(bundle, measured, monkeypatch):
    """The note says how to give one."""
    monkeypatch.setattr(room, "this_host", lambda: UNKNOWN)
    found = remeasure_bundle(bundle, Conditions())

    assert (found.price, found.usd_per_million) == (None, None)
    assert any("--price-per-hour" in note for note in found.notes)


def test_the_users_price_wins(bundle, claim, measured):
    """Whatever the sheet says."""
    with_price(bundle, claim, "c7i.large", 0.08925)

    assert remeasure_bundle(bundle, Conditions(price_per_hour=0.5)).price.usd_per_hour == 0.5
    assert remeasure_bundle(bundle, Conditions(instance="c7a.large")).price.instance == "c7a.large"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"threads": 0}, InputError), ({"instance": "c7i.larg"}, UnknownNameError), ({"price_per_hour": -1.0}, InputError)],
)
def test_impossible_conditions_are_refused_before_anything_is_measured(wrong, error):
    """A study takes minutes."""
    with pytest.raises(error):
        Conditions(**wrong)


@pytest.mark.parametrize(("threads", "machine", "is_told"), [(1, None, False), (2, None, True), (1, "a laptop", True)])
def test_code_that_was_compiled_for_other_conditions_is_told(bundle, claim, measured, monkeypatch, threads, machine, is_told):
    """Ahead-of-time code does not follow --threads."""
    if machine:
        claim.cost(bundle, machine=machine)
    monkeypatch.setattr(lowering, "is_compiled_ahead", lambda mode, device: mode == "eager")
    notes = remeasure_bundle(bundle, Conditions(threads=threads)).notes

    assert any("eager compiled the code of this bundle for 1 thread" in note for note in notes) is is_told


def test_modes_that_are_compiled_ahead_say_so():
    """The others take any number of threads, or compile when they are loaded."""
    assert lowering.is_compiled_ahead("aot_inductor")
    assert not any(map(lowering.is_compiled_ahead, ("eager", "onnxruntime", "openvino", "torch_compile")))


def test_other_versions_are_told(bundle, claim, measured):
    """A number of another runtime is another number."""
    environment = read_manifest(bundle).environment
    claim.rewrite(bundle, environment=environment.model_copy(update={"libraries": {"torch": "1.0", "gone": "2.0"}}))

    assert any(
        "torch 1.0, here " in note and "gone 2.0, here none" in note for note in remeasure_bundle(bundle, Conditions()).notes
    )


def test_a_damaged_bundle_has_its_reason(bundle):
    """It is not run."""
    (bundle / "README.md").write_text("other")
    found = remeasure_bundle(bundle, Conditions())

    assert "must have SHA-256" in found.failure
    assert (found.found.side, found.usd_per_million) == (None, None)


def test_a_bundle_that_answers_otherwise_cannot_be_used_here(bundle, monkeypatch):
    """It runs, but it is another model."""
    side = RerunSide((), None, 0.4, 0.05, 1, 1.0)
    monkeypatch.setattr(room, "rerun", lambda *_, **__: Rerun(None, "here", side))

    assert (
        "deviate by 0.4 of the largest output from the stored ones, 0.05 is allowed"
        in remeasure_bundle(bundle, Conditions()).failure
    )


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    """With the hint that makes one."""
    with pytest.raises(BundleError):
        remeasure_bundle(tmp_path, Conditions())


def test_every_verified_bundle_of_a_study_is_measured(study, measured):
    """The untouched model of trial 0 has none."""
    assert [one.folder.name for one in remeasure_study(study, Conditions())] == ["trial-1"]
    assert measured == [("trial-1", 1, None)]


def test_the_untouched_model_is_found_among_the_stages(study, measured):
    """By the recipe that made it: a pruned model has an eager artifact too."""
    for fingerprint, key in ((UNTOUCHED.fingerprint, "a" * 64), ("other", "b" * 64)):
        study.record_stage(StageRun(key, "compile", "fp32/eager", 1.0, "done", False, fingerprint, utc_now()))
        StageCache(study.stages_dir).get_or_make(key, "compile", "fp32/eager", lambda folder: None)

    assert untouched_artifact(study).parent.name == "a" * 64
    (found,) = remeasure_study(study, Conditions())
    assert found.has_untouched
    assert any("as it was exported" in note for note in found.notes)


def test_a_study_without_a_bundle_says_how_to_make_one(study):
    """Exit code 1: it ran, but there is nothing."""
    study.record_final(1, study.finals()[1].measurement, {}, bundle=None, bundle_sha256=None, verified=False, refusal="no")

    with pytest.raises(NoResultError, match="must have a verified bundle"):
        list(remeasure_study(study, Conditions()))
