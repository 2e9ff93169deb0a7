"""Prices: the shipped sheet, and arithmetic with money."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.errors import FaultsError, InputError, UnknownNameError
from autocut.price import Price, break_even_predictions, load_prices, price_for, usd_for, usd_per_million

POSITIVE = st.floats(1e-4, 1e4)


def test_the_shipped_sheet_is_dated_and_names_its_source():
    """A price needs its date."""
    sheet = load_prices()
    assert sheet.date == dt.date(2026, 7, 20)
    assert "karpenter" in sheet.source
    assert sheet.price("c7i.large") == Price("c7i.large", 0.08925, "2026-07-20", 1.0)


def test_an_unknown_instance_gets_the_nearest_name():
    """Never a default price."""
    with pytest.raises(UnknownNameError) as caught:
        price_for("c7i.lrage")
    assert caught.value.hint == "did you mean 'c7i.large'?"


def test_the_users_own_price_needs_no_instance():
    """Prices change, and machines are rented elsewhere."""
    price = price_for("whatever", 0.5, 0.25)
    assert (price.usd_per_hour, price.utilization) == (0.5, 0.25)
    assert "whatever" not in price.instance


@pytest.mark.parametrize(
    ("price", "utilization"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, 0.0), (1.0, 1.5), (1.0, float("nan"))]
)
def test_what_cannot_be_a_price_is_refused(price, utilization):
    """Otherwise a division by zero would follow."""
    with pytest.raises(InputError, match="must be above 0"):
        price_for("c7i.large", price, utilization)


def test_every_fault_of_a_sheet_is_reported_at_once(tmp_path):
    """One reading reports three faults."""
    sheet = tmp_path / "mine.toml"
    sheet.write_text(
        'schema_version = 1\ndate = 2026-07-20\nregion = "x"\nterms = "y"\ncurrency = "EUR"\nsourc = "z"\n[usd_per_hour]\na = -1\n'
    )
    with pytest.raises(FaultsError) as caught:
        load_prices(sheet)
    told = " ".join(map(str, caught.value.faults))
    assert all(word in told for word in ("currency", "sourc", "source", "usd_per_hour.a"))


def test_a_sheet_that_is_no_toml_is_an_error(tmp_path):
    """A missing file is one fault, too."""
    broken = tmp_path / "broken.toml"
    broken.write_text("date = ")
    for path in (broken, tmp_path / "missing.toml"):
        with pytest.raises(FaultsError) as caught:
            load_prices(path)
        assert "readable TOML" in str(caught.value.faults[0])


def test_the_literatures_example_comes_out():
    """c7g.xlarge at 200 predictions a second, half of the time busy: 0.40 dollars a million."""
    price = price_for("c7g.xlarge", utilization=0.5)
    assert usd_per_million(price.usd_per_hour, 200, price.utilization) == pytest.approx(0.40, abs=0.005)


@given(POSITIVE, POSITIVE, st.floats(0.01, 1))
def test_a_million_predictions_cost_the_hours_they_take(price, throughput, utilization):
    """Oracle: serve a million by the clock."""
    hours = 1e6 / throughput / 3600 / utilization
    assert usd_per_million(price, throughput, utilization) == pytest.approx(hours * price)


def test_training_is_charged_by_the_second():
    """Eight hours of g6.xlarge are 6.44 dollars; utilization is about serving."""
    assert usd_for(price_for("g6.xlarge", utilization=0.1), 8 * 3600) == pytest.approx(6.4384)


@given(POSITIVE, POSITIVE, POSITIVE)
def test_after_break_even_both_ways_cost_the_same(search, baseline, candidate):
    """Oracle: the two bills at that number of predictions."""
    predictions = break_even_predictions(search, baseline, candidate)
    if candidate >= baseline:
        assert predictions is None
    else:
        millions = predictions / 1e6
        assert search + millions * candidate == pytest.approx(millions * baseline)
