"""One rule says which model most people should take, and everything that names one model follows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autocut import cli
from autocut.commands.report import recommend
from autocut.deploy.select import picks_of_study, select_from_study
from autocut.execution.conclusion import conclude
from autocut.report import notes


@pytest.fixture
def recommended(read_study):
    """The number of the trial that the pick `balanced` names."""
    return next(pick.point.trial for pick in picks_of_study(read_study) if pick.name == "balanced")


def test_report_notes_and_the_end_of_a_search_name_the_balanced_pick(read_study, recommended, capsys):
    """Four places named four models once."""
    from autocut.console import Console

    assert recommend(read_study)[0].point.trial == recommended
    assert f"autocut export {read_study.folder} --trial {recommended} " in notes.study_note(read_study, read_study.front())
    assert conclude(read_study, Console()) == 0
    assert f"Trial {recommended}: balanced pick, " in capsys.readouterr().err


def test_a_bundle_behind_the_front_is_something_to_deploy(read_study, recommended, monkeypatch, capsys):
    """The time may be up before the front's own models are finalized: the search has not ended with nothing."""
    from autocut.console import Console

    points = read_study.points()
    monkeypatch.setattr(read_study, "front", lambda: [replace(point, bundle=None) for point in type(read_study).front(read_study)])
    on_front = {point.trial for point in read_study.front()}
    (behind, *_) = [point for point in points if point.trial not in on_front]
    found = [replace(point, bundle="bundles/behind" if point is behind else None) for point in points]
    monkeypatch.setattr(read_study, "points", lambda: found)

    assert conclude(read_study, Console()) == 0
    told = capsys.readouterr().err
    assert "0 verified bundles on the front" in told
    assert f"behind the front: trial {behind.trial}, bundles/behind" in told


def test_beaten_bundles_of_other_runtimes_are_named_at_the_end(read_study, monkeypatch, capsys):
    """What is deployed is also a choice of the runtime: a slow model's search finalizes one of each that is nearly as cheap."""
    from autocut.console import Console

    front = read_study.front()
    modes = {point.recipe.lowering[1] for point in front}
    beaten, same = (
        replace(front[0], trial=900 + at, recipe=front[0].recipe.with_lowering("int8_static", mode), bundle=f"bundles/{mode}")
        for at, mode in enumerate(("openvino", next(iter(modes))))
    )
    assert "openvino" not in modes
    points = [*(replace(point, bundle="bundles/one") for point in front), beaten, same]
    monkeypatch.setattr(read_study, "points", lambda: points)
    assert conclude(read_study, Console()) == 0
    told = " ".join(capsys.readouterr().err.split())

    assert "verified too, behind the front, in other runtimes: trial 900, " in told
    assert "trial 901" not in told


def test_select_without_a_wish_names_it_and_a_wish_is_followed(read_study, recommended, capsys):
    """A limit asks for something else: then the cheapest that keeps it is the choice."""
    assert cli.main(["select", str(read_study.folder)]) == 0
    assert f"--trial {recommended} " in capsys.readouterr().err
    assert select_from_study(read_study, minimize=None, knee=False, pick=None).point.trial == recommended

    cheapest = min(read_study.front(), key=lambda point: point.values["usd_per_million"])
    assert cheapest.trial != recommended
    assert select_from_study(read_study, limits=["usd_per_million<=1000"]).point.trial == cheapest.trial


def test_two_studies_are_compared_by_it(read_study, recommended, capsys):
    """Both picks."""
    assert cli.main(["compare", str(read_study.folder), str(read_study.folder)]) == 0
    assert f"picks: a tie; trial {recommended} of A and trial {recommended} of B" in capsys.readouterr().out
