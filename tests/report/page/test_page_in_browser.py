"""The HTML file in Chromium: it draws, sorts, filters, prints, and asks the network for nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from autocut.commands.report import recommend
from autocut.report.page import Section, render
from tests.browser import PHONE, axe_source, axe_violations, chromium, tab

DRAWN = "html.drawn"
VISIBLE = "#trials tbody tr:not([hidden])"


def written(study, folder):
    """The page of a study as a file; returns its address."""
    recommended, _ = recommend(study)
    file = folder / "report.html"
    file.write_text(render(study, recommended, version="0.1.0"), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests here."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(read_study, tmp_path_factory):
    """The page of the filled study."""
    return written(read_study, tmp_path_factory.mktemp("page"))


def opened(one, address):
    """Open the page and wait until the plots are drawn."""
    one.page.goto(address)
    one.page.wait_for_selector(DRAWN)
    return one.page


def with_table(one, address):
    """Open the page and wait for its table alone, which works before the plots are drawn."""
    one.page.goto(address, wait_until="commit")
    one.page.wait_for_selector("#trials thead button")
    return one.page


def test_the_page_draws_without_errors_and_without_the_network(browser, address):
    """The only request is for the file itself, and the console stays empty."""
    with tab(browser) as one:
        page = opened(one, address)

        assert page.locator("#front-plot .scatterlayer .trace").count() >= 3
        assert page.locator("#growth-plot .scatterlayer .trace").count() == 1
        assert one.requests == [address]
        assert one.complaints == []


def test_a_click_on_a_heading_sorts_by_number(browser, address):
    """10 comes after 9, and a missing value comes last. The second click turns the order round."""
    with tab(browser) as one:
        page = with_table(one, address)
        page.select_option("#group", "")
        column = page.locator("#trials thead button", has_text="$ per million").first
        at = page.locator("#trials thead th").all_inner_texts().index("$ per million, one process")
        orders = {}
        for way in ("ascending", "descending"):
            column.click()
            assert page.locator(f"#trials thead th[aria-sort={way}]").count() == 1
            orders[way] = page.eval_on_selector_all(VISIBLE, f"rows => rows.map(row => row.cells[{at}].dataset.value)")

        numbers = [float(value) for value in orders["ascending"] if value]
        assert numbers == sorted(numbers)
        assert orders["ascending"][len(numbers) :] == [""] * (len(orders["ascending"]) - len(numbers))
        assert [float(value) for value in orders["descending"] if value] == numbers[::-1]


def test_a_word_filters_the_rows(browser, address, read_study):
    """The count says how many are left."""
    wanted = [trial for trial in read_study.trials() if trial.recipe and "bf16" in trial.recipe.describe()]
    with tab(browser) as one:
        page = with_table(one, address)
        page.select_option("#group", "")
        page.fill("#find", "BF16")

        texts = page.locator(VISIBLE).all_inner_texts()
        assert len(texts) >= len(wanted) > 0
        assert all("bf16" in text for text in texts)
        assert page.inner_text("#count") == f"{len(texts)} of {len(read_study.trials())} trials"


def test_pointing_at_a_trial_shows_it_and_a_click_finds_its_row(browser, address):
    """The plot answers what, how much, and how sure."""
    with tab(browser) as one:
        page = opened(one, address)
        point = page.locator("#front-plot .scatterlayer .trace").last.locator(".point").first
        point.scroll_into_view_if_needed()
        box = point.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#front-plot .hoverlayer .hovertext")
        shown = page.text_content("#front-plot .hoverlayer")
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#trials tr.found")

        assert "test" in shown
        assert f"trial {page.get_attribute('#trials tr.found', 'data-trial')}" in shown


BOXES = """selector => [...document.querySelectorAll(selector)].map(node => node.getBoundingClientRect())
    .map(box => [box.left, box.top, box.right, box.bottom])"""


def crowded(page_text):
    """The page with 60 more models on its front, in a band right below the first pick."""
    before, found, after = re.split(r'(?<=id="data">)(.*?)(?=</script>)', page_text, maxsplit=1, flags=re.DOTALL)
    data = json.loads(found)
    pick = next(point for point in data["points"] if point["id"] == data["picks"][0][0])
    pixel = (data["view"][1] - data["view"][0]) / 350
    for at in range(60):
        lower = [value - (26 + at % 3 * 8) * pixel for value in pick["v"]["accuracy"]]
        costs = {name: [1.05**at * value for value in spread] for name, spread in pick["v"].items()}
        data["points"].append({**pick, "id": 1000 + at, "g": "front", "v": {**costs, "accuracy": lower}})
    return f"{before}{json.dumps(data)}{after}"


@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_the_names_of_the_picks_hide_no_model_of_the_front(browser, address, device, tmp_path):
    """Where the usual place is full, a name stands elsewhere."""
    file = tmp_path / "report.html"
    file.write_text(crowded(Path(url2pathname(urlparse(address).path)).read_text(encoding="utf-8")), encoding="utf-8")
    with tab(browser, **device) as one:
        page = opened(one, file.as_uri())
        names = page.evaluate(BOXES, "#front-plot .annotation-text-g .bg")
        points = page.evaluate(BOXES, "#front-plot .scatterlayer .trace:nth-last-child(-n+2) .point")

    centres = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in points]
    assert names
    assert len(centres) > 60
    for left, top, right, bottom in names:
        assert not [at for at in centres if left < at[0] < right and top < at[1] < bottom]


def test_traces_and_cost_are_chosen_with_the_keyboard(browser, address):
    """A legend that needs a mouse would leave people out."""
    with tab(browser) as one:
        page = opened(one, address)
        before = page.locator("#front-plot .scatterlayer .trace").count()
        page.focus("#traces input")
        page.keyboard.press("Space")
        page.select_option("#cost-axis", "latency_ms")

        assert page.locator("#front-plot .scatterlayer .trace").count() == before - 1
        assert page.text_content("#front-plot .xtitle") == "latency, ms (p50)"


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_axe_finds_no_violation(browser, address, options):
    """Contrast, names and landmarks hold in each theme, and nothing but tables and code scrolls sideways on a phone."""
    axe_source()
    with tab(browser, **options) as one:
        page = opened(one, address)

        assert axe_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_javascript_the_answer_and_the_table_are_there(browser, address, read_study):
    """Mail programs and strict browsers run no script."""
    with tab(browser, java_script_enabled=False) as one:
        one.page.goto(address)

        assert one.page.locator(".answer h2").is_visible()
        shown = {int(row.get_attribute("data-trial")) for row in one.page.locator(VISIBLE).all()}
        assert {point.trial for point in read_study.front()} <= shown
        assert not one.page.locator("#find").is_visible()


def test_text_of_the_study_runs_no_program(browser, small_study, spoil, tmp_path):
    """Neither as HTML nor as a label of the plot."""
    spoil(small_study)
    with tab(browser) as one:
        page = opened(one, written(small_study, tmp_path))
        page.locator("#front-plot .scatterlayer .trace").nth(3).locator(".point").first.hover(force=True)

        assert page.title() == f"{small_study.name}: which model to take"
        assert page.locator("main img").count() == 0
        assert one.complaints == []


def test_paper_is_white_even_in_the_dark_theme(browser, address):
    """A dark print wastes ink and cannot be read."""
    with tab(browser, color_scheme="dark") as one:
        page = opened(one, address)
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")

        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("#find").is_visible()
        assert page.locator("#traces").is_visible(), "paper needs the meaning of the marks"
        assert not page.locator("#cost-axis").is_visible()


def test_paper_shows_what_is_folded_away_on_a_screen(browser, small_study, tmp_path):
    """Nobody can click on paper. Afterwards the screen is as it was."""
    with tab(browser) as one:
        page = opened(one, written(small_study, tmp_path))
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<details><summary>1 remark</summary></details>')")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details[open]").count() == 0


def test_a_table_of_numbers_uses_the_width_of_the_page(browser, read_study, tmp_path):
    """A number and its interval stand in one line: a column of five lines beside an empty half of the page cannot be read."""
    row = (
        "structured 0.7 + onnxruntime",
        "0.98",
        "-0.8 points (-2.7 to +0.8) tie",
        "11.7x (10.7 to 12.8)",
        "$1",
        "-9%",
        "1KB",
        "-9%",
    )
    section = Section("Which knob bought what", (), ("step", *("number",) * 7), (row,))
    file = tmp_path / "wide.html"
    file.write_text(render(read_study, None, [section], version="0.1.0"), encoding="utf-8")
    with tab(browser) as one:
        cells = opened(one, file.as_uri()).locator(".many tbody td")

        height, line = cells.nth(2).evaluate("cell => [cell.clientHeight, parseFloat(getComputedStyle(cell).lineHeight)]")
        assert height < 2 * line
