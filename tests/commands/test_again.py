"""What `autocut remeasure` and `autocut compare` say, and how they end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autocut import cli
from autocut.bill import UNTOLD, Bill
from autocut.console import Console
from autocut.deploy import remeasure as room
from autocut.deploy.manifest import economics_of, read_manifest, render
from autocut.deploy.rerun import Rerun, RerunSide
from autocut.errors import ExitCode
from autocut.price import price_for
from autocut.study import open_study, remeasurements

BUNDLE = "studies/digits/bundles/trial-0007"


@pytest.fixture
def study(finished_study, tmp_path, monkeypatch):
    """The current folder has a finished study: studies/digits."""
    shutil.copytree(finished_study, tmp_path / "studies/digits")
    monkeypatch.chdir(tmp_path)
    priced = economics_of(Bill(price_for("c7i.large"), 2.0, 0.5, 3.0, 0.2), UNTOLD, None, None)
    manifest = read_manifest(Path(BUNDLE)).model_copy(update={"economics": priced})
    (Path(BUNDLE) / "manifest.json").write_text(render(manifest), encoding="utf-8")
    return Path("studies/digits")


@pytest.fixture
def measured(monkeypatch):
    """Replace the fresh process by one that finds what was claimed."""

    def run(bundle, threads, *, untouched, shapes, alone, working):
        cost = read_manifest(bundle).measurement.cost
        return Rerun(None, "here", RerunSide(cost.latencies, None, 0.0, 0.05, cost.size_bytes, 7.0))

    monkeypatch.setattr(room, "rerun", run)


def test_a_bundle_is_shown_beside_its_claim(study, measured, capsys):
    """A row for each number, then what a reader must know."""
    assert cli.main(["remeasure", BUNDLE, "--threads", "2", "--price-per-hour", "0.1"]) == ExitCode.DONE
    told = capsys.readouterr().out

    assert "claimed" in told
    assert "p50 latency, batch 1 " in told
    dollars = next(line for line in told.splitlines() if line.startswith("a million predictions"))
    assert dollars.count("on c7i.large ($0.0892") == 2, "beside the claim stand dollars of the same price"
    assert "on a machine of your own ($0.1/h)" in next(
        line for line in told.splitlines() if line.startswith("at this machine's price")
    )
    assert "no speed-ups" in told


def test_the_document_has_the_dollars_that_compare_with_the_claim(study, measured, capsys):
    """At twice the price of the claim they are half of what this machine takes."""
    price = 2 * read_manifest(Path(BUNDLE)).economics.price_per_hour
    assert cli.main(["remeasure", BUNDLE, "--price-per-hour", str(price), "--json"]) == ExitCode.DONE
    (found,) = json.loads(capsys.readouterr().out)["bundles"]

    at_claimed, here = found["usd_at_claimed_price"]["value"], found["usd_per_million"]["value"]
    assert here == pytest.approx(2 * at_claimed)


def test_a_study_keeps_what_was_found(study, measured, capsys):
    """In a table of its own: trials, finals and bundles stay as they are."""
    before = sorted((path, path.stat().st_mtime_ns) for path in (study / "bundles").rglob("*"))
    opened = open_study(study)
    finals, frame = opened.finals(), opened.to_frame()
    opened.close()
    assert cli.main(["remeasure", str(study)]) == ExitCode.DONE
    opened = open_study(study)
    ((_, kept),) = remeasurements.remeasurements(opened)

    assert (kept["trial"], kept["found"]["machine"], kept["failure"]) == (7, "here", None)
    assert (opened.finals(), opened.to_frame().equals(frame)) == (finals, True)
    assert sorted((path, path.stat().st_mtime_ns) for path in (study / "bundles").rglob("*")) == before
    opened.close()


def test_several_bundles_have_two_lines_each(study, measured, monkeypatch, capsys):
    """The claim above what was found, machines, threads and prices once below. No line is too wide for a terminal."""
    opened = open_study(study)
    final = opened.finals()[7]
    shutil.copytree(study / "bundles/trial-0007", study / "bundles/trial-0000")
    opened.record_final(0, final.measurement, final.values, bundle=study / "bundles/trial-0000", bundle_sha256="0", verified=True)
    opened.close()
    assert cli.main(["remeasure", str(study)]) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()

    rows = [line.split()[1] for line in lines if line.lstrip().startswith("7 ")]
    assert rows == ["claimed", "here"] * 2, "both are bundles of trial 7"
    assert any(line.startswith("claimed: 1 thread of ") for line in lines)
    assert any(line.startswith("here:    1 thread of here") for line in lines)
    assert any(line.startswith("dollars, claimed and here, are those of c7i.large ($0.0892") for line in lines)

    monkeypatch.setattr(Console, "terminal_width", lambda self: 80)
    assert cli.main(["remeasure", str(study)]) == ExitCode.DONE
    table = capsys.readouterr().out.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80


def test_a_bundle_that_does_not_run_here_ends_with_1(study, monkeypatch, capsys):
    """Its reason is told, and the claim is shown."""
    monkeypatch.setattr(room, "rerun", lambda *_, **__: Rerun(failure="killed by SIGILL"))

    assert cli.main(["remeasure", BUNDLE]) == ExitCode.NO_RESULT
    assert "it cannot be used here: killed by SIGILL" in capsys.readouterr().out


def test_a_bundle_inside_a_study_is_timed_against_the_untouched_model(study, measured, monkeypatch, capsys):
    """The stages of the study have it."""
    monkeypatch.setattr(room, "untouched_artifact", lambda study: Path("untouched"))

    assert cli.main(["remeasure", BUNDLE]) == ExitCode.DONE
    assert "over the untouched model as it was exported" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "studies/digits", BUNDLE], "A and B must be two bundles or two studies, got a study and a bundle"),
        (["compare", "studies/digits", "studies/digits", "--threads", "2"], "--threads must be left out for two studies, got 2"),
        (["compare", "studies/digits", "nowhere"], "B must be a bundle or a study, got no folder 'nowhere'"),
        (["compare", "studies", "studies"], "A must be a bundle or a study, got the folder 'studies'"),
        (["compare", BUNDLE, "nowhere"], "B must be a bundle or a study, got no folder 'nowhere'"),
        (["compare", BUNDLE, BUNDLE, "--threads", "9999"], "--threads must be at most the "),
        (["remeasure", BUNDLE, "--threads", "9999"], "processors here, got 9999"),
        (["remeasure", "nowhere"], "target must be a bundle or a study, got no folder 'nowhere'"),
        (["remeasure", BUNDLE, "--instance", "c7i.larg"], "--instance must be one of"),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(study, capsys, words, message):
    """Exit code 2."""
    assert cli.main(words) == ExitCode.BAD_INPUT
    told = capsys.readouterr().err

    assert message in told
    assert "hint: " in told


def test_two_studies_are_shown_side_by_side(study, capsys):
    """The same study twice: half of nothing differs."""
    assert cli.main(["compare", str(study), str(study)]) == ExitCode.DONE
    told = capsys.readouterr().out

    assert "covering 100.0% of what both fronts cover together" in told
    assert "picks: a tie" in told
    dollars = [line for line in told.splitlines() if "usd_per_million" in line]
    assert len(dollars) == 2, "of the picks, and of the corner of the hypervolumes"
    assert all("$" in line for line in dollars)
    assert "not comparable" not in told


def test_two_bundles_are_shown_side_by_side(study, monkeypatch, capsys):
    """A difference of the tasks is named below."""
    side = RerunSide(read_manifest(Path(BUNDLE)).measurement.cost.latencies, None, 0.0, 0.05, 9, 7.0)
    monkeypatch.setattr("autocut.deploy.compare.rerun", lambda *_, **__: Rerun(None, "here", side, replace(side, size_bytes=10)))

    assert cli.main(["compare", BUNDLE, BUNDLE]) == ExitCode.DONE
    told = capsys.readouterr().out
    assert "1 thread of here, calls by turns in one process" in told
    assert "size: B is 10.00% smaller than A; A 10B, B 9B" in told
