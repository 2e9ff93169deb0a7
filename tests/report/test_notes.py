"""Markdown on the dashboard."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from autocut.gains import with_untouched
from autocut.picks import PICKS, named_picks
from autocut.report import notes


def test_the_study_note_names_the_front_and_the_next_command(read_study):
    """A person can paste the command from the page to get a bundle."""
    front = read_study.front()
    text = notes.study_note(read_study, front)

    assert all(f"| {point.trial}\u00a0" in text for point in front)
    assert f"autocut select {read_study.folder} --max-accuracy-drop" in text
    assert text.index("## Take trial ") < text.index(f"autocut export {read_study.folder} --trial ") < text.index("## Front")


def test_a_study_that_has_just_begun_has_a_note(empty_study):
    """A person may open the dashboard before the first trial has ended."""
    assert "No measured trial yet." in notes.study_note(empty_study, [])


def test_a_trial_note_has_recipe_numbers_and_command(read_study):
    """Every measured number with its interval, on both splits once finalized."""
    point = next(point for point in read_study.front() if point.tested)
    record = next(trial for trial in read_study.trials() if trial.trial == point.trial)
    text = notes.trial_note(read_study, record, read_study.finals()[point.trial])

    assert point.recipe.describe() in text
    assert "Locked test split" in text
    assert "Validation split" in text
    assert f"{point.measurement.accuracy.metric.value:.4f}" in text
    assert f"{point.tested.values['accuracy']:.4f}" in text
    assert f"--trial {point.trial} --to out/" in text


def test_a_failed_trial_says_why(read_study):
    """Its page begins with the reason and has no export command."""
    failed = next(trial for trial in read_study.trials() if trial.state == "FAIL")
    stopped = next(trial for trial in read_study.trials() if trial.state == "PRUNED")

    assert f"**Failed:** {failed.reason}" in notes.trial_note(read_study, failed, None)
    assert f"**Stopped early:** {stopped.reason}" in notes.trial_note(read_study, stopped, None)
    assert "autocut export" not in notes.trial_note(read_study, failed, None)


def test_a_refused_bundle_is_reported_and_not_offered(read_study):
    """Its page must not offer a command that fails."""
    number, final = next((number, final) for number, final in read_study.finals().items() if not final.verified)
    record = next(trial for trial in read_study.trials() if trial.trial == number)
    text = notes.trial_note(read_study, record, final)

    assert f"**Its bundle was refused:** {final.refusal}" in text
    assert "autocut export" not in text


def test_a_folder_with_a_space_is_quoted():
    """A person pastes the command into a shell."""
    assert notes.export_command(Path("my studies/digits"), 4) == "autocut export 'my studies/digits' --trial 4 --to out/"


def test_a_refused_trial_shows_no_validation_numbers_as_test_numbers(read_study):
    """A trial that was refused before its test has validation numbers in its final record."""
    number, final = next((number, final) for number, final in read_study.finals().items() if not final.verified)
    record = next(trial for trial in read_study.trials() if trial.trial == number)
    untested = replace(final, measurement=record.measured.measurement)

    assert "Locked test split" in notes.trial_note(read_study, record, final)
    assert "Locked test split" not in notes.trial_note(read_study, record, untested)
    assert "Validation split" in notes.trial_note(read_study, record, untested)


def test_the_studys_note_has_the_three_picks(read_study):
    """The dashboard names the same trials as the terminal and the report."""
    text = notes.study_note(read_study, read_study.front())
    named = dict(re.findall(r"- \*\*(\w+)\*\*: trial (\d+)(?: too)?, ", text))
    picks = named_picks(with_untouched(read_study.front(), read_study.points()), read_study.objectives)

    assert named == {pick.name: str(pick.point.trial) for pick in picks}
    assert list(named) == list(PICKS)
    assert f"--trial {named['balanced']} " in text
