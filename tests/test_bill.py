"""Bills: what a month costs, when a search has paid for itself, and the CO2 of serving."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.bill import UNTOLD, Bill, Serving, price_note, serving_of
from autocut.errors import InputError
from autocut.price import Price

PRICE = Price("c7a.large", 0.1, "2026-02-09")
AMOUNT = st.floats(1e-4, 1e4)


@given(AMOUNT, AMOUNT, AMOUNT, AMOUNT)
def test_after_break_even_both_totals_are_equal(untouched, candidate, search, requests):
    """Oracle: both ways are paid for, one prediction after the other."""
    bill = Bill(PRICE, untouched, candidate, search, None, requests)
    predictions = bill.break_even_predictions
    if candidate >= untouched:
        assert predictions is None
        assert bill.break_even_days is None
    else:
        assert bill.total_usd(predictions) == pytest.approx(bill.untouched_total_usd(predictions))
        assert bill.total_usd(2 * predictions) < bill.untouched_total_usd(2 * predictions)


@given(AMOUNT, AMOUNT, st.floats(1, 1e12))
def test_the_parts_of_a_month_add_up(untouched, candidate, requests):
    """What is saved is the difference of the two bills."""
    bill = Bill(PRICE, untouched, candidate, 1.0, 0.1, requests)

    assert bill.untouched_usd_per_month - bill.saved_usd_per_month == pytest.approx(bill.usd_per_month, abs=1e-9 * requests)


@given(AMOUNT, st.floats(1e3, 1e12))
def test_the_days_until_break_even_are_those_in_which_the_savings_pay_the_search(search, requests):
    """Oracle: the savings of a day, from the bill of a month of 730 hours."""
    bill = Bill(PRICE, 2.0, 0.5, search, None, requests)
    saved_per_day = 1.5 * requests / 1e6 / (730 / 24)

    assert bill.break_even_days * saved_per_day == pytest.approx(search)


def test_nobody_told_a_month_so_nothing_is_said_about_it():
    """A made-up number of requests would be a made-up bill."""
    bill = Bill(PRICE, 2.0, 0.5, 3.0, 0.2)

    assert (bill.usd_per_month, bill.saved_usd_per_month, bill.break_even_days) == (None, None, None)
    assert bill.lines == (
        "$0.500 per million predictions, $2.00 untouched; the search cost $3.00, training this recipe once $0.200 in CPU time",
        "the search has paid for itself after 2,000,000 predictions",
    )


def test_a_month_with_many_machines_is_told_in_dollars_and_days():
    """100 million requests keep more than one machine busy: 200 dollars at 73 a machine."""
    bill = Bill(PRICE, 2.0, 0.5, 3.0, None, 100e6)

    assert bill.lines[1:] == (
        "a month of 100,000,000 requests: $50.00, untouched $200.00: $150.00 less",
        "the search has paid for itself after 2,000,000 predictions, in less than a day",
    )


def test_a_month_that_one_machine_serves_says_that_an_idle_machine_costs_too():
    """Whoever keeps one machine on saves nothing, however fast the model is."""
    lines = Bill(PRICE, 2.0, 0.5, 3.0, None, 1e6).lines

    assert "these are busy hours alone: one machine that is always on costs $73.00 a month with either model" in lines


def test_a_dearer_model_is_told_so():
    """It never pays for its search."""
    bill = Bill(PRICE, 0.5, 2.0, 3.0, None, 200e6)

    assert bill.lines[1:] == (
        "a month of 200,000,000 requests: $400.00, untouched $100.00: $300.00 more",
        "the search never pays for itself: this model is not cheaper than the untouched one",
    )


def test_programs_read_the_same_bill():
    """One document has every number of the lines."""
    bill = Bill(PRICE, 2.0, 0.5, 3.0, 0.2, 1e6)

    assert bill.document["saved_usd_per_month"] == pytest.approx(1.5)
    assert bill.document["break_even_days"] == bill.break_even_days


def test_a_study_of_an_older_version_tells_nothing_about_serving():
    """Its facts have neither requests nor a note about the price."""
    assert serving_of({}) == UNTOLD
    assert price_note({}) is None


def test_a_study_of_an_older_version_is_compared_with_its_price_when_it_is_read():
    """Its facts describe the machine; what a search of today has found beats that."""
    price = {"instance": "c7i.large", "usd_per_hour": 0.08925, "date": "2026-07-20", "utilization": 1.0}
    machine = {"cpu": "AMD EPYC 25/17/1", "architecture": "x86_64", "cores": 2, "gpu": None}

    assert price_note({"price": price, "machine": machine}).endswith("this machine is AMD EPYC Genoa, 2 cores")
    assert price_note({"price": price | {"instance": "c7a.large"}, "machine": machine}) is None
    assert price_note({"price": price, "machine": machine, "price_fit": None}) is None


def test_what_the_user_told_before_stays_until_it_is_told_anew():
    """The same search command without the flag must not forget it."""
    told = UNTOLD.told(3e6, 30.0)

    assert told.told(None, None) == told
    assert told.told(5e6, None) == Serving(5e6, 30.0, "as given")
    assert UNTOLD.told(3e6, None).grid_source == UNTOLD.grid_source


@pytest.mark.parametrize("numbers", [(0.0, None), (-1.0, None), (float("nan"), None), (None, -1.0), (None, float("inf"))])
def test_what_cannot_be_served_is_refused(numbers):
    """The message names the flag and the value."""
    with pytest.raises(InputError, match=r"--(requests-per-month|grid-intensity) must be .*, got") as caught:
        UNTOLD.told(*numbers)
    assert caught.value.hint


def test_a_million_predictions_of_a_joule_take_a_quarter_of_a_kilowatt_hour():
    """1 MJ are 0.2778 kWh: at 400 g each, 111 g of CO2."""
    assert Serving(grid_g_per_kwh=400).grams_per_million(1.0) == pytest.approx(111.11, abs=0.01)


def test_the_default_grid_names_its_source_and_its_year():
    """Nobody should take the average of the world for his own grid."""
    assert "2023" in UNTOLD.grid_source
    assert "Ember" in UNTOLD.grid_source
