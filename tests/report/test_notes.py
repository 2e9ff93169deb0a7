"""Markdown on the dashboard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autocut.report import notes


def test_the_study_note_names_the_front_and_the_next_command(read_study):
    """From the page to a bundle by copy and paste."""
    front = read_study.front()
    text = notes.study_note(read_study, front)

    assert all(f"| \u2003{point.trial} |" in text for point in front)
    assert f"autocut select {read_study.folder} --max-accuracy-drop 1% --minimize cost" in text
    assert f"autocut export {read_study.folder} --trial " in text


def test_a_study_that_has_just_begun_has_a_note(empty_study):
    """The dashboard is opened before the first trial is done."""
    assert "No measured trial yet." in notes.study_note(empty_study, [])


def test_a_trial_note_has_recipe_numbers_and_command(read_study):
    """Every measured number with its interval, on both splits once finalized."""
    point = next(point for point in read_study.front() if point.measurement.accuracy.split == "test")
    record = next(trial for trial in read_study.trials() if trial.trial == point.trial)
    text = notes.trial_note(read_study, record, read_study.finals()[point.trial])

    assert point.recipe.describe() in text
    assert "Locked test split" in text
    assert "Validation split" in text
    assert f"{point.measurement.accuracy.metric.value:.4f}" in text
    assert f"--trial {point.trial} --to out/" in text


def test_a_failed_trial_says_why(read_study):
    """The reason is the first thing on its page, and there is nothing to export."""
    failed = next(trial for trial in read_study.trials() if trial.state == "FAIL")
    stopped = next(trial for trial in read_study.trials() if trial.state == "PRUNED")

    assert f"**Failed:** {failed.reason}" in notes.trial_note(read_study, failed, None)
    assert f"**Stopped early:** {stopped.reason}" in notes.trial_note(read_study, stopped, None)
    assert "autocut export" not in notes.trial_note(read_study, failed, None)


def test_a_refused_bundle_is_told_and_not_offered(read_study):
    """Nobody should copy a command that is known to fail."""
    number, final = next((number, final) for number, final in read_study.finals().items() if not final.verified)
    record = next(trial for trial in read_study.trials() if trial.trial == number)
    text = notes.trial_note(read_study, record, final)

    assert f"**Its bundle was refused:** {final.refusal}" in text
    assert "autocut export" not in text


def test_a_folder_with_a_space_is_quoted():
    """The command is pasted into a shell."""
    assert notes.export_command(Path("my studies/digits"), 4) == "autocut export 'my studies/digits' --trial 4 --to out/"


def test_a_refused_trial_shows_no_validation_numbers_as_test_numbers(read_study):
    """What was refused before it reached the test split has validation numbers for final ones."""
    number, final = next((number, final) for number, final in read_study.finals().items() if not final.verified)
    record = next(trial for trial in read_study.trials() if trial.trial == number)
    untested = replace(final, measurement=record.measured.measurement)

    assert "Locked test split" in notes.trial_note(read_study, record, final)
    assert "Locked test split" not in notes.trial_note(read_study, record, untested)
    assert "Validation split" in notes.trial_note(read_study, record, untested)
