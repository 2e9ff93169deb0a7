"""What the HTML file says, read without a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from autocut.bill import bill_lines
from autocut.commands.report import recommend
from autocut.picks import told_once
from autocut.recipe import UNTOUCHED, Recipe
from autocut.report.page import Section, render
from autocut.report.page.answer import answer_of
from autocut.report.page.sections import what_failed
from autocut.report.page.trials import trial_lines
from autocut.study import remeasurements


class Words(HTMLParser):
    """Collects the visible words of each element with an id, the rows of tables, and the addresses that a page names."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.addresses, self.words, self._skip = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        named = dict(attrs)
        self._skip = tag in ("script", "style")
        self.addresses += [named[key] for key in ("src", "href") if key in named]
        if tag == "tr" and "data-trial" in named:
            self.rows.append((int(named["data-trial"]), named["data-group"], "hidden" in named))

    def handle_data(self, data):
        """Note a text."""
        self.words += [] if self._skip else [data]

    @property
    def text(self):
        """All that a person reads."""
        return " ".join(" ".join(self.words).split())


def rendered(study, *extra):
    """The page of a study."""
    recommended, missing = recommend(study)
    return render(study, recommended, extra, version="0.1.0", no_answer=missing)


@pytest.fixture(scope="module")
def html(read_study):
    """The page of the filled study, rendered once."""
    return rendered(read_study)


def test_the_answer_names_the_model_what_it_saves_and_the_command(read_study, html):
    """A reader who stops after ten lines knows what to type."""
    recommended, _ = recommend(read_study)
    text = Words(html).text
    trial = recommended.point.trial

    assert f"Take trial {trial}" in text
    assert f"autocut export {read_study.folder} --trial {trial} --to out/" in text
    assert re.search(r"[\d.]+× cheaper", text)
    assert f"{recommended.point.values['accuracy']:.4f} chose it" in text


def test_what_the_test_split_contradicts_stands_beside_the_recommendation(read_study):
    """The tile of the accuracy shows a larger drop than the reason: a reader is told why."""
    recommended, _ = recommend(read_study)
    page = render(read_study, replace(recommended, doubt="the test split cannot rule out more"), version="0.1.0")

    assert "The test split cannot rule out more." in Words(page).text
    assert "cannot rule out" not in Words(render(read_study, replace(recommended, doubt=None), version="0.1.0")).text


def test_the_mark_of_a_row_is_no_sentence_of_the_answer(read_study):
    """The word "Baseline." by itself does not say why people should take this model."""
    recommended, _ = recommend(read_study)
    lines = {line.trial: replace(line, notes=("baseline", "ties with 3")) for line in trial_lines(read_study)}
    notes = answer_of(read_study.folder, recommended, lines).notes

    assert "Baseline." not in notes
    assert "Ties with 3." in notes


def test_the_page_has_the_three_picks_with_their_reasons(read_study, html):
    """Under the answer, for readers who want another one."""
    recommended, _ = recommend(read_study)
    text = Words(html).text

    assert [pick.name for pick in recommended.picks] == ["quality", "balanced", "compact"]
    for name, told in told_once(recommended.picks):
        assert f"{name} : {told}." in text


def test_the_reason_and_the_command_stand_above_the_money(small_study):
    """Who reads ten lines gets what to take, why, and what to type; what it costs and what disturbed it come later, each once."""
    price = {"instance": "c7a.large", "usd_per_hour": 0.1, "date": "2026-02-09", "utilization": 1.0}
    small_study.describe({"price": price, "price_fit": None})
    recommended, _ = recommend(small_study)
    text = Words(rendered(small_study)).text
    reason = recommended.reason[:1].upper() + recommended.reason[1:]

    order = [text.index(words) for words in (f"{reason}.", "autocut export", "Three picks", "What it costs", "Money by the")]
    assert order == sorted(order)
    assert text.count("Money by the") == 1


def test_the_picks_are_marked_in_the_table_and_in_the_plot(read_study, html):
    """A reader finds the recommended model among many points."""
    picks = {}
    for pick in recommend(read_study)[0].picks:
        picks.setdefault(pick.point.trial, []).append(pick.name)
    rows = re.findall(r'<tr data-trial="(\d+)".*?</tr>', html, re.DOTALL)
    marked = {
        int(row[1]): row[2] for row in re.finditer(r'<tr data-trial="(\d+)"(?:(?!</tr>).)*?mark pick">([^<]*)', html, re.DOTALL)
    }
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])

    assert len(rows) > len(marked)
    assert marked == {trial: ", ".join(names) for trial, names in picks.items()} == dict(map(tuple, data["picks"]))


def test_the_table_has_every_trial_and_shows_the_front_first(read_study, html):
    """Without JavaScript the other rows stay hidden."""
    rows = Words(html).rows
    front = {point.trial for point in read_study.front()}

    assert sorted(trial for trial, _, _ in rows) == [trial.trial for trial in read_study.trials()]
    assert {trial for trial, _, _ in rows[: len(front)]} == front
    assert all(hidden == (group not in ("front", "baselines")) for _, group, hidden in rows)


def test_validation_and_test_numbers_have_columns_of_their_own(html):
    """Numbers of two splits in one column would be compared."""
    text = Words(html).text

    dollars = "$ per million, one process $ per million, one process, final timing"
    assert f"accuracy, validation accuracy, test {dollars}" in text
    assert "whole machine" not in text  # it was not measured here


def test_the_file_asks_for_nothing_from_elsewhere(html):
    """It can be opened on a train and sent to a colleague."""
    assert [address for address in Words(html).addresses if not address.startswith(("#", "data:"))] == []


def test_the_file_stays_small(html):
    """Mail takes it: Plotly is packed."""
    assert len(html.encode()) < 5_000_000


def test_text_of_the_study_stays_text(small_study, spoil):
    """A recipe or a reason may come from anybody."""
    spoil(small_study)
    page = rendered(small_study)

    assert "<img src=x" not in page
    assert "</script><script>document" not in page
    assert "&lt;img src=x" in page


def test_the_data_of_the_plot_keep_both_splits(read_study, html):
    """Each front point has its validation numbers, and its test numbers once it is finalized."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
    points = {point["id"]: point for point in data["points"]}

    for point in read_study.front():
        assert points[point.trial]["v"]["accuracy"][0] == pytest.approx(point.measurement.accuracy.metric.value, rel=1e-4)
        assert ("t" in points[point.trial]) == (point.tested is not None)


def test_a_study_that_has_just_begun_has_a_page(empty_study):
    """It says that there is no model yet, instead of an empty plot."""
    page = rendered(empty_study)

    assert "No model yet" in Words(page).text
    assert 'id="front-plot"' not in page


def test_a_further_section_is_shown_and_an_empty_one_is_left_out(read_study):
    """Other rooms add what they know; what nobody knows has no heading."""
    page = rendered(read_study, Section("Which knob bought what", rows=(("int8", "2x"),)), Section("Nothing known"))

    assert "Which knob bought what" in page
    assert "Nothing known" not in page


def test_the_bill_is_that_of_every_other_verb(small_study):
    """Dollars a month, and when the search has paid for itself; the arithmetic is that of `autocut.bill`."""
    price = {"instance": "c7a.large", "usd_per_hour": 0.1, "date": "2026-02-09", "utilization": 1.0}
    note = "ratios hold, dollars may not: prices are of another machine"
    small_study.describe({"price": price, "price_fit": note, "serving": {"requests_per_month": 40_000_000}})
    recommended, _ = recommend(small_study)
    untouched = next(point for point in small_study.points() if point.recipe == UNTOUCHED)
    lines = bill_lines(small_study.facts, small_study.spent_s(), untouched, recommended.point)
    text = Words(rendered(small_study)).text

    assert len(lines) >= 3
    assert all(line[1:] in text for line in lines)
    assert text.count(note[1:]) == 2, "beside the dollars, and with the machine"
    assert re.search(r"A month of 40,000,000 requests: \$[\d.]+, untouched \$[\d.]+: \$[\d.]+ less", text)


def test_a_caveat_of_a_measurement_stands_by_its_trial(small_study):
    """Numbers of a disturbed timing must not look like those of a calm one."""
    measured = small_study.points()[0].measurement
    latencies = tuple(replace(latency, disturbance=1.7) for latency in measured.cost.latencies)
    disturbed = replace(measured, cost=replace(measured.cost, latencies=latencies))
    values = dict(small_study.points()[0].values)
    trial = small_study.complete(None, Recipe({"prune.method": "structured", "prune.ratio": 0.33}), {}, {}, values, disturbed)
    lines = {line.trial: line for line in trial_lines(small_study)}

    assert [remark for remark in lines[trial].remarks if "disturbed the timing" in remark] == [
        f"Other work disturbed the timing at batch size {size}, by a factor of 1.7. The speed-up is the smallest that this allows"
        for size in (1, 32)
    ]
    assert not any("disturbed" in note for number, line in lines.items() if number != trial for note in line.remarks)
    assert "Other work disturbed the timing at batch size 32" in Words(rendered(small_study)).text


def test_what_the_audit_found_is_told_with_the_machine(small_study):
    """Numbers of a loaded machine must not look like those of a calm one."""
    small_study.describe({"machine_audit": ["load 1.4 beside the search"], "price_fit": "ratios hold, dollars may not"})
    text = Words(rendered(small_study)).text

    assert "Load 1.4 beside the search." in text
    assert "Ratios hold, dollars may not." in text


def test_bundles_that_were_measured_again_have_a_section(small_study):
    """The latest of each machine; a study that was never measured again has no such section."""
    assert "Measured again" not in Words(rendered(small_study)).text

    remeasurements.prepare(small_study)
    for milliseconds, threads in ((0.5, 1), (0.25, 1), (0.125, 2)):
        latencies = [{"batch_size": 1, "p50_ms": {"value": milliseconds}}]
        found = {"machine": "a laptop", "threads": threads, "latencies": latencies}
        document = {"trial": 7, "sha256": "a", "found": found, "failure": None, "usd_per_million": None, "instance": None}
        remeasurements.record(small_study, "a", "a laptop", threads, document)
    failed = {"trial": 8, "sha256": "b", "found": None, "failure": "killed by SIGILL", "usd_per_million": None, "instance": None}
    remeasurements.record(small_study, "b", "a laptop", 1, failed)
    text = Words(rendered(small_study)).text

    assert "a laptop, 1 thread batch 1: 0.25 ms" in text
    assert "a laptop, 2 threads batch 1: 0.125 ms" in text
    assert "cannot be used there: killed by SIGILL" in text
    assert "0.5 ms" not in text.partition("Measured again")[2]


def test_reasons_that_differ_in_numbers_alone_are_one_group():
    """A hundred trials beaten at another epoch are one line."""
    ended = [("PRUNED", f"beaten at epoch {epoch} of 8: 0.7{epoch} against 0.93", epoch) for epoch in range(2, 5)]
    section = what_failed([*ended, ("FAIL", "no kernel for bf16", 9)])

    assert section.rows == (
        ("3 stopped early", "beaten at epoch 2 of 8: 0.72 against 0.93 (trials 2, 3, 4)"),
        ("1 failed", "no kernel for bf16 (trial 9)"),
    )
