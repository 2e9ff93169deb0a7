"""A study as a Python program reads it."""

from __future__ import annotations

import shutil

import pytest

import autocut
from autocut.errors import InputError, NoResultError, StudyError


@pytest.fixture
def study(finished_study, tmp_path):
    """A study that a test may write to, open."""
    return autocut.open_study(shutil.copytree(finished_study, tmp_path / "digits"))


def test_a_study_gives_its_points(study):
    """What chose them and what is reported stay apart."""
    assert (study.name, study.objectives["accuracy"]) == ("digits", "maximize")
    assert [point.trial for point in study.front()] == [0, 7]
    assert study.baseline().trial == 0
    assert (study.front()[1].values["accuracy"], study.front()[1].final.values["accuracy"]) == (0.97, 0.965)
    assert (len(study.points()), len(study.to_frame()), study.ledger()["spent_s"]) == (2, 8, 300.0)


@pytest.mark.parametrize("call", ["explain", "export"])
def test_what_is_no_trial_is_refused_in_words(study, tmp_path, call):
    """A program catches `AutocutError`, as everywhere."""
    with pytest.raises(InputError, match="trial must be the number of a trial or a point of the front, got 'x'"):
        getattr(study, call)("x", **({"to": tmp_path / "out"} if call == "export" else {}))


def test_a_choice_goes_by_limits(study):
    """Numbers have the units of their names; text is as on the command line."""
    assert study.select(max_accuracy_drop=0.05).point.trial == 7
    assert study.select(max_accuracy_drop=0.05).reason
    assert study.select(max_size_bytes=30_000, max_latency_ms=0.1, limits=["usd_per_million<=0.002"]).point.trial == 7
    with pytest.raises(NoResultError, match="none of 2 models"):
        study.select(max_size_bytes=1)
    with pytest.raises(InputError, match="minimize must be one of"):
        study.select(minimize="weight")


def test_a_drop_is_a_share_or_a_percentage_in_text(study):
    """5 for 5% would allow any loss."""
    assert study.select(max_accuracy_drop="5%").point.trial == study.select(max_accuracy_drop=0.05).point.trial == 7
    with pytest.raises(InputError, match="max_accuracy_drop must be a share from 0 to 1, got 5"):
        study.select(max_accuracy_drop=5)
    with pytest.raises(InputError, match="max_accuracy_drop must have a percent sign, got '5'"):
        study.select(max_accuracy_drop="5")


def test_a_pick_is_that_of_the_command_line(study):
    """It goes by the study's own cost, and within what the search allowed."""
    assert study.select(pick="compact").point.trial == 7
    assert study.select(pick="compact").reason.startswith("compact pick")
    with pytest.raises(InputError, match="got both"):
        study.select(pick="compact", knee=True)
    with pytest.raises(InputError, match="a pick must stand without minimize, got compact and latency"):
        study.select(pick="compact", minimize="latency")


def test_a_choice_without_a_wish_is_the_balanced_pick(study):
    """The same as on the command line. Nothing on the test split contradicts it."""
    chosen = study.select()
    assert (chosen.point.trial, chosen.doubt) == (7, None)
    assert chosen.reason.startswith("balanced pick, the cheapest with a verified bundle within 1.0 point of")


def test_an_explanation_is_that_of_the_command_line(study):
    """Typed, and by what is measured already."""
    explained = study.explain(study.front()[1], measure=False, quiet=True)

    assert (explained.trial, explained.recipe) == (7, dict(study.front()[1].recipe))
    assert explained.whole.speedup.value > 1
    assert [part.reason for part in explained.missing] == ["it was not measured yet"] * len(explained.missing)
    with pytest.raises(StudyError, match="TRIAL"):
        study.explain(99, measure=False, quiet=True)


def test_a_report_is_written_where_it_is_wanted(study, tmp_path):
    """Else into the study's folder."""
    assert study.report(tmp_path / "page.html") == tmp_path / "page.html"
    assert "<html" in (tmp_path / "page.html").read_text()
    assert study.report() == study.folder / "report.html"
    with pytest.raises(InputError, match="--to must name an HTML file"):
        study.report(tmp_path / "page.txt")


def test_an_exported_bundle_loads_and_keeps_its_claims(study, tmp_path):
    """From the point to the model, and the proof of it."""
    bundle = study.export(study.select(max_accuracy_drop=0.05).point, tmp_path / "out", quiet=True)

    assert bundle == tmp_path / "out"
    assert autocut.load(bundle).manifest.trial == 7
    assert autocut.verify(bundle, quiet=True).ok
    with pytest.raises(StudyError, match="--trial must be a finished trial"):
        study.export(99, tmp_path / "other", quiet=True)


def test_what_is_no_study_is_refused(tmp_path):
    """At once, not at the first question."""
    with pytest.raises(StudyError):
        autocut.open_study(tmp_path)


def test_check_returns_every_fault(tmp_path):
    """A fault is a result of the check, not an exception."""
    (tmp_path / "task.py").write_text("task = 1\n")

    assert [fault.hint for fault in autocut.check(tmp_path / "task.py")] == ["task = autocut.Task(...)"]
