"""Handing out a bundle: all of it or nothing, wherever the user wants it."""

import contextlib
import errno
import os
import shutil
import types
from pathlib import Path

import pytest

from autocut.deploy import export as export_module
from autocut.deploy.bundle import copy_bundle, hand_out
from autocut.deploy.export import export_trial
from autocut.deploy.finalize import Finalized
from autocut.deploy.manifest import check_files, read_manifest
from autocut.errors import BundleError, NoResultError, StudyError, TrialError, VerificationError
from autocut.pipeline.stage_cache import StageCache
from autocut.price import price_for
from autocut.recipe import Recipe
from autocut.search.jobs import TEST_SCORING, StageStarted
from autocut.stages import lowering
from autocut.stages.libraries import library_versions
from autocut.study import create_study, open_study
from autocut.study.records import StageRun, utc_now


@pytest.fixture
def study(bundle, tmp_path):
    """Folder of a study whose trial 0 has a verified bundle."""
    opened = create_study(
        tmp_path / "study", name="tiny", task_fingerprint="t", space_json="{}", objectives={"accuracy": "maximize"}, seed=0
    )
    measurement = read_manifest(bundle).measurement
    opened.complete(None, Recipe(), {}, {}, {"accuracy": 0.9}, measurement)
    stored = bundle.rename(opened.folder / "bundles" / "trial-0")
    opened.record_final(0, measurement, {"accuracy": 0.9}, bundle=stored, bundle_sha256="0", verified=True)
    opened.close()
    return opened.folder


def is_whole(folder: Path) -> bool:
    """Whether `folder` is a bundle with nothing beside it."""
    check_files(folder, read_manifest(folder))
    return True


@pytest.mark.parametrize("to", ["out", "new/deep/out", "there"])
def test_a_stored_bundle_is_copied_without_being_loaded(study, tmp_path, to, monkeypatch):
    """Loading may compile for a minute; the hashes are enough."""
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(lowering, "load", lambda *_: pytest.fail("loaded"))

    assert export_trial(study, 0, tmp_path / to) == tmp_path / to

    assert is_whole(tmp_path / to)
    assert not [path for path in (tmp_path / to).parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("examples", "is_made"), [(None, False), (True, False), (False, True)])
def test_a_bundle_with_other_examples_than_asked_for_is_made_anew(study, tmp_path, examples, is_made, monkeypatch):
    """A copy would hand out the data that `--no-examples` keeps back."""
    asked = []
    monkeypatch.setattr(export_module, "_make", lambda study, record, command, examples, retrain, to: asked.append(examples))
    monkeypatch.setattr(export_module, "hand_out", lambda to, make: make(to))
    export_trial(study, 0, tmp_path / "out", examples=examples)

    assert asked == ([examples] if is_made else [])


def test_the_folder_one_stands_in_becomes_the_bundle(study, tmp_path, monkeypatch):
    """It stays the same folder: a shell that stands in it sees the files."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    export_trial(study, 0, Path())

    assert is_whole(Path())
    assert Path().samefile(here)


def test_a_file_in_the_way_is_refused(study, tmp_path):
    """At every depth, before anything is made."""
    (tmp_path / "afile").write_text("x")
    for to in ("afile", "afile/x", "afile/x/y"):
        with pytest.raises(BundleError, match="must be a missing or empty folder"):
            export_trial(study, 0, tmp_path / to)
    assert (tmp_path / "afile").read_text() == "x"


def test_a_folder_with_something_in_it_is_left_alone(study, tmp_path):
    """Files of the user are never mixed with files of a bundle."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")

    with pytest.raises(BundleError, match="must be a missing or empty folder"):
        export_trial(study, 0, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_nothing_and_the_next_try_works(study, tmp_path, monkeypatch, there):
    """`shutil.copytree` collects what failed in an error without a number."""
    if there:
        (tmp_path / "out").mkdir()
    real, written = shutil.copyfile, []

    def fill(source, target, **more):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device", target)
        written.append(target)
        return real(source, target, **more)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", fill)
        with pytest.raises(BundleError, match=r"out must be writable, got: .*No space left"):
            export_trial(study, 0, tmp_path / "out")

    assert (tmp_path / "out").exists() == there
    assert written
    export_trial(study, 0, tmp_path / "out")
    assert is_whole(tmp_path / "out")


def test_a_damaged_bundle_is_not_handed_out(study, tmp_path):
    """One byte is enough."""
    victim = next(path for path in (study / "bundles/trial-0/model").rglob("*") if path.is_file())
    victim.write_bytes(victim.read_bytes()[:-1] + b"\xff")

    with pytest.raises(VerificationError, match="SHA-256"):
        export_trial(study, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_that_came_out_otherwise_is_not_handed_out(bundle, tmp_path, monkeypatch):
    """A disk may lie; the copy is read again."""
    real = shutil.copyfile

    def lossy(source, target, **more):
        real(source, target, **more)
        if Path(target).name == "README.md":
            os.truncate(target, 10)

    monkeypatch.setattr(shutil, "copyfile", lossy)

    with pytest.raises(VerificationError, match="SHA-256"):
        hand_out(tmp_path / "out", lambda draft: copy_bundle(bundle, draft))
    assert not (tmp_path / "out").exists()


def test_an_unknown_trial_is_refused_with_the_known_ones(study, tmp_path):
    """Exit code 2, nothing made."""
    with pytest.raises(StudyError, match=r"\(0 to 0\), got 7"):
        export_trial(study, 7, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_not_made_from_stages_of_other_versions(study, tmp_path):
    """Their keys would not be found, so another model than the measured one would be trained and handed out."""
    opened = open_study(study)
    needed = {"task_path": None, "threads": 1, "price": vars(price_for("c7i.large", None, 1.0))}
    opened.describe({"libraries": library_versions() | {"torch": "1.0"}, **needed})
    opened.set_reference(read_manifest(study / "bundles/trial-0").measurement.cost)
    opened.close()

    with pytest.raises(StudyError, match=r"was made with torch 1\.0, got torch"):
        export_trial(study, 0, tmp_path / "out", examples=False)
    assert is_whole(export_trial(study, 0, tmp_path / "copied"))  # a stored bundle needs no stage


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (StageStarted("baseline", "train", "training", "k"), "the untouched model"),
        (StageStarted("train", "none/kl", "training", "k"), "its trained"),
    ],
)
def test_a_model_whose_weights_are_gone_is_not_trained_without_a_word(study, event, what):
    """The hint says how long it takes, from what it took."""
    opened = open_study(study)
    for seconds in (40.0, 90.0, 400.0):
        opened.record_stage(StageRun("k", event.stage, event.method, seconds, "done", False, "f", utc_now()))

    with pytest.raises(NoResultError, match=f"trial 7 needs {what}") as caught:
        export_module._refuse_training(opened, 7, event)
    opened.close()
    assert "--retrain trains it again (about 1m30s)" in caught.value.hint


@pytest.mark.parametrize(("stage", "method"), [("baseline", "build"), ("compile", "fp32/eager"), ("prune", "structured")])
def test_what_takes_seconds_is_made_again(study, stage, method):
    """Only weights are lost with their stage: everything else comes out the same."""
    opened = open_study(study)
    export_module._refuse_training(opened, 7, StageStarted(stage, method))
    opened.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_bundle_that_is_made_anew_is_a_look_at_the_test_split_and_a_copy_is_none(study, tmp_path, monkeypatch, fails):
    """Its model is scored on the locked split once more, whatever becomes of the bundle then."""
    opened = open_study(study)
    opened.describe({"task_path": None, "threads": 1, "price": vars(price_for("c7i.large", None, 1.0))})
    measurement = read_manifest(study / "bundles/trial-0").measurement
    opened.set_reference(measurement.cost)
    before = len(opened.looks())
    opened.close()
    task = types.SimpleNamespace(fingerprint="t", share_examples=True, name="tiny")
    pipeline = types.SimpleNamespace(runner=types.SimpleNamespace(context=types.SimpleNamespace(task=task)))
    reports = []
    monkeypatch.setattr(export_module, "open_pipeline", lambda study, trials, report: reports.append(report) or pipeline)

    def finalize(*arguments):
        reports[-1](StageStarted(TEST_SCORING, ""))
        if fails:
            raise TrialError("the disk is full")
        return Finalized(study, "0", measurement, None)

    monkeypatch.setattr(export_module, "finalize", finalize)
    monkeypatch.setattr(export_module, "hand_out", lambda to, make: make(to))

    with pytest.raises(NoResultError) if fails else contextlib.nullcontext():
        export_trial(study, 0, tmp_path / "new", examples=False)
    assert [look.purpose for look in open_study(study).looks()][before:] == ["export"]
    export_trial(study, 0, tmp_path / "copied")
    assert len(open_study(study).looks()) == before + 1


def test_stages_that_are_not_signed_are_not_trained_again_in_silence(study):
    """They are there, but of an older version or of another key: the user may trust them."""
    opened = open_study(study)
    cache = StageCache(opened.stages_dir, secret=b"another person's key" * 2)
    cache.get_or_make("0" * 64, "train", "linear", lambda folder: None)

    with pytest.raises(NoResultError, match="not signed with") as caught:
        export_module._refuse_training(opened, 0, StageStarted("train", "linear"))
    opened.close()
    assert "--adopt-stages" in caught.value.hint
