"""Durations, sizes, percents and the budget's arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.budget import Budget, format_duration, format_size, format_usd, parse_duration, parse_percent, parse_size
from autocut.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h", 28_800), ("30m", 1_800), ("90s", 90), ("1h30m", 5_400), ("1.5h", 5_400), ("1d", 86_400), (" 2H ", 7_200)],
)
def test_duration_is_read_with_its_unit(text, seconds):
    """The README and the help show these forms."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "8x", "30m1h", "1h1h", "-5m", "0s", "1 h", "nan", "1e3s"])
def test_unreadable_duration_is_refused(text):
    """It is an error, never a guess."""
    with pytest.raises(InputError, match=r"--budget must be"):
        parse_duration(text, "--budget")


def test_bare_number_is_refused_with_what_to_type():
    """A bare 8 could be hours or seconds."""
    with pytest.raises(InputError, match="must have a unit, got '8'") as caught:
        parse_duration("8", "--budget")
    assert caught.value.hint == "write 8h, 8m or 8s"


@given(st.integers(min_value=10, max_value=10**8))
def test_whole_seconds_survive_writing_and_reading(seconds):
    """Parse is the inverse of format."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.floats(min_value=0.1, max_value=10**7))
def test_written_duration_is_within_half_a_second(seconds):
    """Rounding is to the second, or to the tenth for short times."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.501 if seconds > 9.9 else 0.051)


@pytest.mark.parametrize(("text", "size"), [("10GB", 10**10), ("5MB", 5_000_000), ("1.5 kB", 1_500), ("1KiB", 1_024), ("12b", 12)])
def test_size_is_read_with_its_unit(text, size):
    """Decimal units are powers of 1000, binary ones of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["5", "MB", "5XB", "-1MB", "0MB", "5%", "9" * 400 + "GB"])
def test_unreadable_size_is_refused(text):
    """The hint says what to type."""
    with pytest.raises(InputError, match="--max-size must") as caught:
        parse_size(text, "--max-size")
    assert "MB" in caught.value.hint


@given(st.integers(min_value=1, max_value=10**15))
def test_written_size_is_within_one_percent(size):
    """Three digits are enough to read, and two of them are exact."""
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize(
    ("usd", "text"), [(0, "$0.00"), (0.00006919, "$0.0000692"), (0.105, "$0.105"), (12.5, "$12.50"), (1234.0, "$1234.00")]
)
def test_dollars_are_never_powers_of_ten(usd, text):
    """Millionths of a dollar are what a prediction costs."""
    assert format_usd(usd) == text


@pytest.mark.parametrize(("text", "fraction"), [("1%", 0.01), ("0.5 %", 0.005), ("0%", 0), ("100%", 1)])
def test_percent_is_read_as_a_fraction(text, fraction):
    """1% is 0.01."""
    assert parse_percent(text) == fraction


@pytest.mark.parametrize("text", ["1", "0.01", "101%", "-1%", "one%"])
def test_unreadable_percent_is_refused(text):
    """0.01 could be 1% or a hundredth of a percent."""
    with pytest.raises(InputError, match="--max-accuracy-drop must"):
        parse_percent(text, "--max-accuracy-drop")


def test_budget_counts_earlier_runs_and_the_injected_clock():
    """A resumed search continues from the ledger."""
    now = [100.0]
    budget = Budget(total_s=60, spent_s=20, clock=lambda: now[0])
    assert (budget.spent(), budget.left(), budget.deadline) == (20, 40, 140)

    now[0] = 110.0
    assert (budget.spent(), budget.left(), budget.deadline) == (30, 30, 140)

    now[0] = 999.0
    assert budget.left() == 0


def test_reserve_is_kept_from_the_search_and_keeps_the_start():
    """Planning the reserve later does not restart the clock."""
    now = [0.0]
    budget = Budget(total_s=60, clock=lambda: now[0])
    now[0] = 10.0
    reserved = budget.with_reserve(15)

    assert (reserved.search_left(), reserved.left()) == (35, 50)
    assert reserved.search_deadline == 45


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_spent_and_left_add_up(total, spent, worked):
    """No second is counted twice: time left and time spent add up to the total, until it is overrun."""
    now = [0.0]
    budget = Budget(total_s=total, spent_s=spent, clock=lambda: now[0])
    now[0] = worked
    assert budget.left() == pytest.approx(max(0.0, total - (spent + worked)), abs=1e-6)
