"""What the verbs say of a point that was measured on the whole machine, in its layouts of copies and threads."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autocut import cli
from autocut.bill import point_bill
from autocut.commands.report import recommend
from autocut.errors import ExitCode
from autocut.measurement import Capacity, Interval, Layout
from autocut.price import Price
from autocut.report.notes import trial_note
from autocut.report.page import render
from autocut.report.page.trials import WHOLE_MACHINE, trial_lines
from autocut.report.plots import pareto
from autocut.score import costs_of, dollars_of, interval_of
from autocut.study import open_study


def layout(copies, threads, per_s):
    """A layout that serves `per_s`, give or take 1%."""
    return Layout(copies, threads, Interval(per_s, 0.99 * per_s, 1.01 * per_s), 1000.0)


CAPACITY = Capacity(32, 2, (layout(1, 1, 4000), layout(2, 1, 8000)), (layout(1, 1, 1000), layout(1, 2, 1600), layout(2, 1, 1500)))


@pytest.fixture
def study(finished_study, tmp_path, monkeypatch):
    """A finished study in the current folder, whose trial 7 was measured on the whole machine."""
    shutil.copytree(finished_study, tmp_path / "studies/digits")
    monkeypatch.chdir(tmp_path)
    opened = open_study(Path("studies/digits"))
    final = opened.finals()[7]
    opened.record_final(
        7,
        replace(final.measurement, capacity=CAPACITY),
        {**final.values, "usd_per_million": 0.003},
        bundle=opened.folder / str(final.bundle),
        bundle_sha256="0",
        verified=True,
    )
    opened.close()
    return Path("studies/digits")


def test_the_front_shows_the_layout_beside_one_process(study, capsys):
    """Throughput, copies x threads, and dollars of the whole machine; the untouched model was not finalized here."""
    assert cli.main(["front", str(study), "--no-plot"]) == ExitCode.DONE
    told = capsys.readouterr().out

    assert "whole machine" in told
    assert "8,000/s as 2 x 1, $0.0030" in told


def test_the_document_names_both_best_layouts(study, capsys):
    """Programs need not know how the best one is chosen."""
    assert cli.main(["front", str(study), "--json"]) == ExitCode.DONE
    points = {point["trial"]: point for point in json.loads(capsys.readouterr().out)["points"]}

    served = [points[7]["final"][name] for name in ("served", "served_untouched")]
    assert [(one["copies"], one["threads"], one["per_s"]["value"]) for one in served] == [(2, 1, 8000), (1, 2, 1600)]


def test_the_bill_charges_both_models_by_their_best_layout(study):
    """8,000 a second beside 1,600: a fifth of the dollars, whatever the search has found for one process."""
    opened = open_study(study)
    points = {point.trial: point for point in opened.points()}
    bill = point_bill(opened.facts, opened.spent_s(), points[0], points[7])
    charged = dollars_of(points[7].final.measurement, opened.reference, bill.price)

    assert bill.untouched_usd_per_million == pytest.approx(charged[1])
    assert charged[1] / charged[0] == pytest.approx(8000 / 1600)


def test_the_sentences_of_select_say_what_is_charged(study, capsys):
    """A reader must see which of the two prices this is."""
    assert cli.main(["select", str(study), "--max-accuracy-drop", "5%"]) == ExitCode.DONE
    told = " ".join(capsys.readouterr().out.split())

    assert "money by the final timing" in told
    assert "the machine serves 8,000/s as 2 copies x 1 thread, the untouched model 1,600/s as 1 copy x 2 threads" in told


def test_the_price_of_the_whole_machine_has_the_spread_of_its_throughput(study):
    """Not that of a speed-up of one process."""
    final = open_study(study).finals()[7]

    found = interval_of("usd_per_million", final.values, final.measurement)

    assert found.value == 0.003
    assert found.low == pytest.approx(0.003 / 1.01)
    assert found.high == pytest.approx(0.003 / 0.99)


def test_every_final_number_says_whose_dollars_it_has(study, capsys):
    """Two points of one study may be of two kinds, and these do not compare."""
    assert cli.main(["front", str(study), "--json"]) == ExitCode.DONE
    document = json.loads(capsys.readouterr().out)
    final = next(point["final"] for point in document["points"] if point["trial"] == 7)
    assert cli.main(["front", str(study), "--csv"]) == ExitCode.DONE
    rows = {row["trial"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}

    assert final["charged_as"] == "on the whole machine"
    assert (rows["7"]["final_charged_as"], rows["0"]["final_charged_as"]) == ("on the whole machine", "")
    opened = open_study(study)
    assert opened.finals()[7].charged_as == "on the whole machine"
    note = trial_note(opened, opened.trials()[7], opened.finals()[7])
    assert re.search(r"\$ per million, on the whole machine\s*\|\s*\$0\.00300\s*\|", note)
    assert re.search(r"\$ per million, as one process\s*\|\s*\$0\.00100\s*\|", note)


def test_the_page_has_no_column_and_no_axis_of_two_kinds_of_dollars(study):
    """One process in its own columns and on the axis, beside it the whole machine."""
    opened = open_study(study)
    price, final = Price(**opened.facts["price"]), opened.finals()[7]
    line = next(one for one in trial_lines(opened) if one.trial == 7)
    one_process = costs_of(final.measurement.cost, opened.reference, price)["usd_per_million"]

    assert line.test["usd_per_million"].value == pytest.approx(one_process)
    assert line.test["usd_per_million"].value != pytest.approx(0.003)
    assert line.test[WHOLE_MACHINE].value == 0.003
    drawn = next(trace for trace in pareto(opened, opened.front()).data if trace.name == "front, test")
    assert list(drawn.x) == [pytest.approx(one_process, rel=1e-4)]
    page = rendered(opened)
    for title in ("one process", "one process, final timing", "whole machine"):
        assert f'class="number">$ per million, {title}</th>' in page


def test_the_page_and_the_sentences_have_one_ratio_of_money_for_each_kind(study, capsys):
    """The tile is that of the bill; the reason names both kinds."""
    opened = open_study(study)
    points = {point.trial: point for point in opened.points()}
    bill = point_bill(opened.facts, opened.spent_s(), points[0], points[7])
    tile = re.search(
        r"<dt>a million predictions on the whole machine, final timing</dt>\s*<dd class=.change.>([^<]*)<", rendered(opened)
    )
    assert tile is not None
    assert tile[1] == f"{bill.untouched_usd_per_million / bill.usd_per_million:.2g}× cheaper"

    assert cli.main(["select", str(study)]) == ExitCode.DONE
    reason = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("balanced pick"))
    assert "the cheapest with a verified bundle within 1.0 point" in reason
    assert "4x cheaper as one process in the search, 5x cheaper on the whole machine in the final timing" in reason


def rendered(opened):
    """The report of a study."""
    recommended, _ = recommend(opened)
    return render(opened, recommended, version="0.1.0")
