"""Values of a trial, and limits on them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.errors import InputError, StudyError, UnknownNameError
from autocut.measurement import Accuracy, Capacity, Cost, Interval, Latency, Layout, Measurement
from autocut.price import Price
from autocut.score import (
    ALIASES,
    METRICS,
    Limit,
    accuracy_limit,
    allowed_drop,
    check_errors,
    check_shares,
    dollars_of,
    parse_limit,
    values_of,
)  # fmt: skip

PRICE = Price("test", 0.36, "2026-01-01", 0.5)


def a_latency(batch_size, p50_ms, speedup):
    """A latency of which only the given numbers matter."""
    return Latency(
        batch_size, 64, Interval(p50_ms, p50_ms, p50_ms), None, None, p50_ms * speedup, Interval(speedup, speedup, speedup), 1.0
    )


def a_cost(*latencies):
    """5 kB, 4 kB compressed."""
    return Cost(latencies, 5000, 4000, 1, 3.0, "test")


REFERENCE = a_cost(a_latency(1, 10.0, 1.0), a_latency(32, 64.0, 1.0))


def values(*latencies, accuracy=0.9, train_seconds=100.0):
    """Values of a trial with these latencies."""
    measured = Accuracy("validation", 100, Interval(accuracy, accuracy, accuracy))
    return values_of(Measurement(measured, a_cost(*latencies)), REFERENCE, PRICE, train_seconds)


def test_every_value_comes_from_where_the_table_says():
    """Money at the largest batch size: 32 in 16 ms are 2,000 a second, busy half of the time, at 0.36 an hour."""
    found = values(a_latency(1, 5.0, 2.0), a_latency(32, 16.0, 4.0))
    assert found == pytest.approx(
        {
            "accuracy": 0.9,
            "usd_per_million": 0.1,
            "latency_ms": 5.0,
            "size_bytes": 5000,
            "compressed_size_bytes": 4000,
            "train_usd": 0.01,
            "speedup": 4.0,
        }
    )
    assert set(found) == set(METRICS)


def test_a_slow_hour_changes_nothing():
    """The machine was three times slower for both candidate and baseline, so only the speed-up counts."""
    quiet = values(a_latency(1, 5.0, 2.0), a_latency(32, 16.0, 4.0))
    noisy = values(a_latency(1, 15.0, 2.0), a_latency(32, 48.0, 4.0))
    assert noisy == quiet


def test_the_largest_batch_size_pays_wherever_it_stands():
    """A task may list its batch sizes in any order; the first is its latency."""
    found = values(a_latency(32, 16.0, 4.0), a_latency(1, 5.0, 2.0))
    assert (found["usd_per_million"], found["latency_ms"]) == pytest.approx((0.1, 16.0))


def test_a_reference_of_other_batch_sizes_is_an_error():
    """The task has changed since the study began."""
    with pytest.raises(StudyError, match="batch size 8, got 1, 32"):
        values(a_latency(8, 5.0, 2.0))


@given(st.sampled_from(sorted(METRICS)), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_limit_is_kept_exactly_where_it_says(name, bound, value):
    """Oracle: the comparison itself. Optuna takes 0 or less as kept."""
    limit = Limit(name, ">=" if METRICS[name].is_maximized else "<=", bound)
    kept = value >= bound if limit.operator == ">=" else value <= bound
    assert (limit.violation({name: value}) <= 0) == kept


@given(st.sampled_from(sorted(METRICS)), st.floats(1e-3, 1e6))
def test_a_limit_survives_its_own_spelling(name, bound):
    """It is written into the study and read back."""
    limit = parse_limit(f"{name}{'>=' if METRICS[name].is_maximized else '<='}{bound!r}")
    again = parse_limit(str(limit))
    assert (again.name, again.operator, again.text) == (limit.name, limit.operator, limit.text)
    assert again.bound == pytest.approx(bound, rel=1e-11)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("latency_ms<=5", Limit("latency_ms", "<=", 5)),
        (" accuracy >= 0.9 ", Limit("accuracy", ">=", 0.9)),
        ("cost<=1e-3", Limit("usd_per_million", "<=", 0.001)),
        ("size<=5_000", Limit("size_bytes", "<=", 5000)),
    ],
)
def test_limits_are_read_as_people_write_them(text, limit):
    """Spaces, powers of ten and short names."""
    assert parse_limit(text) == limit


def test_an_unknown_value_gets_the_nearest_name():
    """A limit without effect is never made."""
    with pytest.raises(UnknownNameError, match="limit must be one of accuracy") as caught:
        parse_limit("latencyms<=5")
    assert caught.value.hint == "did you mean 'latency_ms'?"


@pytest.mark.parametrize(
    "text",
    ["latency_ms", "latency_ms=5", "latency_ms<5", "<=5", "latency_ms<=", "latency_ms<=5ms", "latency_ms<=nan", "accuracy>=inf"],
)
def test_a_text_that_is_no_limit_is_an_error(text):
    """The hint shows an example."""
    with pytest.raises(InputError, match="limit must") as caught:
        parse_limit(text)
    assert "latency_ms<=5" in caught.value.hint


@pytest.mark.parametrize(("text", "meant"), [("accuracy<=0.9", "accuracy>=0.9"), ("cost>=1", "usd_per_million<=1")])
def test_a_bound_on_the_good_side_is_a_slip(text, meant):
    """A limit of at most 90% accuracy makes no sense."""
    with pytest.raises(InputError) as caught:
        parse_limit(text)
    assert caught.value.hint == f"did you mean '{meant}'?"


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"accuracy"}))
@pytest.mark.parametrize("bound", ["-5", "-0.001", "0", "-0.0"])
def test_a_limit_that_no_model_or_every_model_keeps_is_refused(name, bound):
    """A latency is above 0. Only training may cost nothing."""
    text = f"{name}{'>=' if METRICS[name].is_maximized else '<='}{bound}"
    if name == "train_usd" and float(bound) == 0:
        assert parse_limit(text).bound == 0
        return
    with pytest.raises(InputError, match=f"limit on {name} must have a bound") as caught:
        parse_limit(text)
    assert ("every model" if name == "speedup" else "no model") in caught.value.message
    meant = caught.value.hint.removeprefix("did you mean '").removesuffix("'?")
    assert parse_limit(meant).name == name


@pytest.mark.parametrize("bound", [0.0, -1.0])
def test_a_limit_that_every_share_keeps_is_refused(bound):
    """An R2 may be below 0; a share of right answers is not."""
    limit = Limit("accuracy", ">=", bound)
    check_shares([limit])
    with pytest.raises(InputError, match="every model keeps this one"):
        check_shares([limit], from_0=True)


def test_a_limit_on_an_error_needs_its_minus():
    """A perplexity of 20 is a metric of -20: a search for 20 would find nothing for hours."""
    check_errors([Limit("accuracy", ">=", -20.0), Limit("latency_ms", "<=", 5.0)])
    with pytest.raises(InputError, match="minus an error") as caught:
        check_errors([Limit("accuracy", ">=", 20.0)])
    assert caught.value.hint == "did you mean 'accuracy>=-20'?"


def test_no_number_keeps_no_limit():
    """NaN compares false with everything; it must not slip through."""
    assert Limit("latency_ms", "<=", 5).violation({"latency_ms": float("nan")}) > 0


def test_aliases_stand_for_values():
    """No alias hides a value."""
    assert set(ALIASES.values()) <= set(METRICS)
    assert not set(ALIASES) & set(METRICS)


@pytest.mark.parametrize(
    ("untouched", "share", "allowed"),
    [(0.98, 0.05, 0.05), (1.0, 0.01, 0.01), (-20.0, 0.05, 1.0), (40.0, 0.05, 2.0), (0.0, 0.05, 0.05)],
)
def test_a_share_may_lose_points_and_any_other_metric_a_share_of_itself(untouched, share, allowed):
    """Five points of an accuracy; a perplexity of 20 may grow to 21."""
    assert allowed_drop(share, untouched) == pytest.approx(allowed)


@pytest.mark.parametrize(
    ("untouched", "share", "bound"),
    [(0.98, 0.05, 0.93), (0.98, None, 0.49), (0.98, 1.0, 0.49), (0.06, 0.05, 0.03), (-20.0, 0.05, -21.0), (-20.0, None, None)],
)
def test_the_stricter_limit_on_accuracy_counts(untouched, share, bound):
    """Half of a metric above 0 is kept in any case."""
    limit = accuracy_limit(untouched, share)

    assert (limit and limit.bound) == (bound if bound is None else pytest.approx(bound))


def a_layout(copies, threads, per_s, yardstick=100.0, spread=0.02):
    """A layout that serves `per_s`, give or take."""
    return Layout(copies, threads, Interval(per_s, per_s * (1 - spread), per_s * (1 + spread)), yardstick)


def test_the_whole_machine_is_charged_for_both_models_where_it_was_measured():
    """Each by its own best layout: 4,000 a second against 1,000, at 0.36 an hour, busy half of the time. No ratio mixes the two."""
    capacity = Capacity(
        32, 2, (a_layout(1, 1, 2500), a_layout(2, 1, 4000)), (a_layout(1, 1, 500), a_layout(1, 2, 1000), a_layout(2, 1, 900))
    )
    accuracy, cost = Accuracy("test", 100, Interval(0.9, 0.9, 0.9)), a_cost(a_latency(1, 5.0, 2.0), a_latency(32, 16.0, 4.0))
    alone = Measurement(accuracy, cost)
    measured = replace(alone, capacity=capacity)

    assert dollars_of(alone, REFERENCE, PRICE) == pytest.approx((0.1, 0.4))
    assert dollars_of(measured, REFERENCE, PRICE) == pytest.approx((0.05, 0.2))
    expected = {**values_of(alone, REFERENCE, PRICE, 100.0), "usd_per_million": 0.05}
    assert values_of(measured, REFERENCE, PRICE, 100.0) == pytest.approx(expected)
