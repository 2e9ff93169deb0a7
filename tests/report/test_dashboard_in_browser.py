"""The dashboard in Chromium: what a person sees there is what autocut would offer."""

from __future__ import annotations

import pytest

from autocut.recipe import Recipe
from autocut.report import publish
from tests.browser import chromium, tab


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests here."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def page_of(browser, served, small_study):
    """A function that opens a page of the dashboard and waits for a text on it."""
    publish(small_study)
    address = served(small_study.folder)
    with tab(browser) as one:

        def open_page(path, text):
            one.page.goto(address + path)
            one.page.get_by_text(text).first.wait_for()
            return one

        yield open_page


def test_best_trials_are_the_front(page_of, small_study, infeasible):
    """The dashboard's own list has trials that violate a limit, and trials whose bundle was refused."""
    infeasible(small_study)
    front = {point.trial for point in small_study.front()}
    one = page_of("", "Best Trials")
    links = one.page.locator("a[href*='trials?numbers=']")
    links.first.wait_for()

    shown = {int(link.get_attribute("href").rpartition("numbers=")[2]) for link in links.all()}
    assert shown == front
    assert any(not trial.is_feasible for trial in small_study.trials())
    assert any(not final.verified for final in small_study.finals().values())


def test_the_first_page_has_names_plots_and_no_errors(page_of):
    """Objectives have names, and the three plots of autocut are drawn."""
    one = page_of("", "How the front grew")
    for title in ("Front of digits", "Learning curves", "accuracy", "usd_per_million"):
        one.page.get_by_text(title).first.wait_for()

    assert one.complaints == []
    assert all(request.startswith("http://127.0.0.1:") for request in one.requests)


def test_the_note_of_a_trial_is_readable_on_its_page(page_of, small_study):
    """Recipe, numbers with their interval, and the command that takes the model away."""
    point = next(point for point in small_study.front() if point.bundle)
    one = page_of(f"/trials?numbers={point.trial}", "Take it away")
    text = one.page.inner_text("body")

    assert point.recipe.describe() in text
    assert f"{point.measurement.accuracy.metric.low:.4f}" in text
    assert f"--trial {point.trial} --to out/" in text
    assert f"trial-{point.trial}-" in text  # the archive of its bundle


def test_a_long_curve_does_not_widen_the_page(page_of, small_study):
    """A reader would look for the numbers three screens to the right."""
    point = small_study.points()[0]
    curve = [0.123456789 + epoch for epoch in range(40)]
    recipe = Recipe({"prune.method": "structured", "prune.ratio": 0.33})
    trial = small_study.complete(None, recipe, {}, {}, dict(point.values), point.measurement, curve=curve)
    one = page_of(f"/trials?numbers={trial}", "39.123456789")

    assert one.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_refusal_reaches_a_dashboard_that_is_open(page_of, small_study, monkeypatch):
    """A search refuses a bundle while somebody looks."""
    monkeypatch.setattr("autocut.report.best_trials._READ_EVERY_S", 0.0)
    point = next(point for point in small_study.front() if point.bundle)
    one = page_of("", "Best Trials")
    one.page.locator(f"a[href$='numbers={point.trial}']").wait_for()
    final = point.final
    small_study.record_final(
        point.trial, final.measurement, final.values, bundle=None, bundle_sha256=None, verified=False, refusal="a byte changed"
    )
    page_of("", "Best Trials").page.locator("a[href*='trials?numbers=']").first.wait_for()

    assert one.page.locator(f"a[href$='numbers={point.trial}']").count() == 0
