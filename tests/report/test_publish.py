"""What the publisher writes to the dashboard, and how often."""

from __future__ import annotations

import zipfile

import pytest
from optuna_dashboard import get_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._note import get_note_from_system_attrs

from autocut.report import Publisher, publish


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def system_attrs(study):
    """What the dashboard reads."""
    return study.optuna._storage.get_study_system_attrs(study.optuna._study_id)


def test_notes_plots_and_bundles_are_published(small_study):
    """After one call the dashboard has everything."""
    publish(small_study)

    attrs = system_attrs(small_study)
    assert "## Front" in get_note(small_study.optuna)
    assert set(get_plotly_graph_objects(attrs)) == {"pareto", "learning_curves", "hypervolume"}
    for trial in small_study.trials():
        assert f"# Trial {trial.trial}\n" in get_note_from_system_attrs(attrs, trial.trial_id)["body"]


def test_only_verified_bundles_of_the_front_are_offered(small_study):
    """The archive has the files of the bundle; the refused bundle has no archive."""
    publish(small_study)

    offered = small_study.trial_files.attached()
    front = [point for point in small_study.front() if point.bundle]
    ids = {trial.trial: trial.trial_id for trial in small_study.trials()}
    assert {trial_id for trial_id, _ in offered} == {ids[point.trial] for point in front}
    (identity,) = [identity for _, identity in offered]
    with zipfile.ZipFile(small_study.artifacts_dir / identity) as archive:
        assert sorted(archive.namelist()) == [f"trial-{front[0].trial}/manifest.json", f"trial-{front[0].trial}/model.onnx"]


def test_publishing_again_writes_nothing_new(small_study):
    """A bundle is attached once, and a note has one version."""
    publish(small_study)
    before = system_attrs(small_study)
    publisher = Publisher(small_study, every_s=0.0)
    publisher.publish(force=True)
    first = system_attrs(small_study)
    publisher.publish(force=True)

    assert system_attrs(small_study) == first
    changed = {key for key in first if before.get(key) != first[key]}
    assert changed <= {"dashboard:note_ver"}


def test_a_bundle_that_left_the_front_is_withdrawn(small_study):
    """The page offers only usable bundles."""
    publish(small_study)
    (point,) = [point for point in small_study.front() if point.bundle]
    small_study.record_final(
        point.trial, point.measurement, point.values, bundle=None, bundle_sha256=None, verified=False, refusal="a byte changed"
    )
    publish(small_study)

    assert small_study.trial_files.attached() == {}
    assert list(small_study.artifacts_dir.iterdir()) == []


@pytest.mark.parametrize(("wait_s", "again"), [(4.0, False), (6.0, True)])
def test_a_loop_may_call_at_any_rate(small_study, wait_s, again):
    """Publishing is rare, even if the loop calls it often."""
    clock = Clock()
    publisher = Publisher(small_study, every_s=5.0, clock=clock)
    assert publisher.publish()
    clock.now = wait_s
    assert publisher.publish() is again
    assert publisher.publish(force=True)


def test_files_that_no_page_offers_are_swept(small_study, tmp_path):
    """A kill came between a file and its entry. What is offered stays."""
    path = tmp_path / "note.txt"
    path.write_text("offered")
    identity = small_study.trial_files.attach(small_study.trials()[0].trial_id, path, "note.txt", "text/plain")
    (small_study.artifacts_dir / "half").write_text("nobody knows it")
    small_study.trial_files.sweep()

    left = {found.name for found in small_study.artifacts_dir.iterdir()}
    assert identity in left
    assert "half" not in left
