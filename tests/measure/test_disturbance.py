"""Disturbance: what is measured again, what is kept, and what a disturbed number is worth. No test asserts a time."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.measure import disturbance as module
from autocut.measure.disturbance import (
    cautious,
    claimable,
    disturbance,
    measure_reference,
    measure_undisturbed,
    wait_for_calm,
)
from autocut.measure.latency import TIME_BETWEEN_RUNS, is_settled
from autocut.measurement import UNDISTURBED, Interval, Latency


def at_once(stop):
    """Wait for nothing."""


def a_latency(baseline_ms, yardstick_ms=1.0):
    """A measurement in which the untouched model took `baseline_ms`."""
    one = Interval(1.0, 1.0, 1.0)
    return Latency(32, 64, one, None, None, baseline_ms, one, yardstick_ms)


def test_a_disturbed_measurement_is_repeated_and_the_closest_is_kept():
    """A neighbour slows long calls more than short ones, so the speed-up would be too large."""
    tries = [a_latency(20.0), a_latency(4.1), a_latency(4.0)]
    assert measure_undisturbed(lambda: tries.pop(0), a_latency(4.0), wait=at_once).baseline_p50_ms == 4.1
    assert len(tries) == 1

    tries = [a_latency(20.0), a_latency(8.0), a_latency(12.0)]
    assert measure_undisturbed(lambda: tries.pop(0), a_latency(4.0), wait=at_once).baseline_p50_ms == 8.0


@pytest.mark.parametrize(("seconds", "used"), [(0.1, 3), (11.0, 1)])
def test_what_takes_long_is_not_measured_again_at_once(monkeypatch, seconds, used):
    """It is flagged, with the smallest speed-up that the disturbance allows, and timed once more when it is finalized."""
    now, tries = [0.0], [a_latency(20.0), a_latency(20.0), a_latency(20.0)]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def measure():
        now[0] += seconds
        return tries.pop(0)

    assert measure_undisturbed(measure, a_latency(4.0), wait=at_once).is_disturbed
    assert 3 - len(tries) == used


def test_a_slower_machine_is_no_disturbance():
    """A slower machine slows the reference workload down as well, so it cancels."""
    tries = [a_latency(8.0, yardstick_ms=2.0)]
    assert measure_undisturbed(lambda: tries.pop(0), a_latency(4.0), wait=at_once).baseline_p50_ms == 8.0


def a_reference(p50_ms, width):
    """A measurement of the untouched model whose interval is `width` wide, relative to its median."""
    p50 = Interval(p50_ms, p50_ms * (1 - width / 2), p50_ms * (1 + width / 2))
    return Latency(32, 64, p50, None, None, p50_ms, Interval(1.0, 1.0, 1.0), 1.0)


@pytest.mark.parametrize(("widths", "used"), [((0.03, 0.0), 1), ((0.5, 0.03), 2), ((0.5, 0.5, 0.5, 0.0), 3)])
def test_the_untouched_model_is_measured_again_only_where_its_times_spread(widths, used):
    """What nothing disturbed needs no second look, and a machine that is never quiet gets three."""
    tries = [a_reference(10.0 - at, width) for at, width in enumerate(widths)]
    assert measure_reference(lambda: tries.pop(0)).p50_ms.value == 10.0 - (used - 1)  # the fastest
    assert len(tries) == len(widths) - used


def test_nothing_is_measured_again_when_time_is_up():
    """The first measurement is then the only one."""
    tries = [a_reference(10.0, 0.5), a_reference(9.0, 0.01)]
    assert measure_reference(lambda: tries.pop(0), lambda: True).p50_ms.value == 10.0


def test_the_untouched_model_says_how_far_its_interval_reaches():
    """A reference that spreads after three tries is marked: every number of the study is divided by it."""
    assert measure_reference(lambda: a_reference(10.0, 0.5)).is_disturbed
    assert not measure_reference(lambda: a_reference(10.0, 0.05)).is_disturbed


def test_a_calm_machine_is_waited_for_once_before_the_last_try():
    """The first repeat comes at once: most disturbances are over by then."""
    log = []

    def measure():
        log.append("measure")
        return a_latency(20.0)

    measure_undisturbed(measure, a_latency(4.0), wait=lambda stop: log.append("wait"))
    assert log == ["measure", "measure", "wait", "measure"]


def test_a_disturbed_number_says_so_and_its_speedup_never_looks_better_than_it_is():
    """Seen: a neighbour made the untouched model 4.6 times slower and the candidate not at all, and 21x was kept for 4.5x."""
    seen = dataclasses.replace(a_latency(4.0 * 21 / 4.5), speedup=Interval(21.0, 20.0, 22.0))
    found = measure_undisturbed(lambda: seen, a_latency(4.0), wait=at_once)
    assert found.is_disturbed
    assert found.disturbance == pytest.approx(21 / 4.5)
    assert found.speedup.value == pytest.approx(4.5)
    assert found.speedup.low < 4.5 < 22.0 <= found.speedup.high
    assert not is_settled(dataclasses.replace(found, samples=7), 64)  # it is timed again at the end


@given(st.floats(1, 30), st.floats(UNDISTURBED, 20, exclude_min=True), st.floats(0, 1))
def test_the_interval_of_a_disturbed_timing_holds_the_true_speedup(truth, factor, share):
    """Oracle: a disturbance that slows the untouched model by `factor`, and the candidate by a part of it."""
    measured = truth * factor / factor**share
    found = cautious(dataclasses.replace(a_latency(4.0), speedup=Interval(measured, measured, measured)), factor)
    assert found.speedup.low * (1 - 1e-9) <= truth <= found.speedup.high * (1 + 1e-9)
    assert found.speedup.value <= truth * (1 + 1e-9)


def test_a_model_that_is_faster_than_in_the_reference_was_not_disturbed():
    """The reference was. All speed-ups are divided by it alike, so this one need not be marked or measured again."""
    tries = [a_latency(2.0), a_latency(4.0)]
    found = measure_undisturbed(lambda: tries.pop(0), a_latency(4.0))
    assert (found.disturbance, found.baseline_p50_ms) == (1.0, 2.0)
    assert disturbance(a_latency(2.0), a_latency(4.0)) == 1.0


def test_nobody_waits_for_calm_when_time_is_up():
    """A trial that must end now ends now."""
    wait_for_calm(lambda: True)


def test_what_is_unusual_of_the_untouched_model_widens_the_interval():
    """It was 10% slower than in the reference, and the reference workload was not: the ratio may be off by as much."""
    found = measure_undisturbed(lambda: a_latency(4.4), a_latency(4.0))
    assert (found.speedup.low, found.speedup.high) == (pytest.approx(1 / 1.1), pytest.approx(1.1))
    assert not found.is_disturbed


def test_a_slow_machine_beside_a_busy_neighbour_is_measured_again():
    """The neighbour may be why it is slow, and slows unlike models unequally. Without one, the machine is slower as a whole."""
    beside = dataclasses.replace(a_latency(8.0, yardstick_ms=2.0), load=1.0)
    tries = [beside, beside, a_latency(4.0)]
    found = measure_undisturbed(lambda: tries.pop(0), a_latency(4.0), wait=at_once)
    assert found.baseline_p50_ms == 4.0
    found = measure_undisturbed(lambda: beside, a_latency(4.0), wait=at_once)
    assert not found.is_disturbed  # it slows the reference workload alike


@given(
    st.floats(-1, 1).map(lambda share: share * TIME_BETWEEN_RUNS), st.floats(0.01, 0.5), st.sampled_from([-1, 1]), st.floats(0, 1)
)
def test_a_claim_of_milliseconds_holds_what_another_hour_finds(process, drift, way, share):
    """Oracle: a later process has luck of its own, and the machine may have drifted back, wholly or in part, to where it was."""
    found = claimable(a_latency(4.0 * math.exp(way * drift)), a_latency(4.0))
    later = math.exp(-way * drift * share) * math.exp(process * math.sqrt(1 - share**2))

    assert found.p50_ms.low * (1 - 1e-9) <= later <= found.p50_ms.high * (1 + 1e-9)
    assert found.speedup == a_latency(4.0).speedup
