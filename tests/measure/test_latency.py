"""Latency: the order of calls, and the properties of the numbers. No test asserts a time."""

import gc
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from autocut.measure import latency as module
from autocut.measure.latency import (
    NARROW,
    beyond_one_run,
    is_settled,
    measure_latency,
    relative_width,
    tail_latency,
    widened,
)
from autocut.measure.turns import reference_workload, time_interleaved
from autocut.measurement import Interval


class FakeClock:
    """A clock that only calls move."""

    def __init__(self):
        self.now_ns = 0

    def __call__(self):
        """Nanoseconds."""
        return self.now_ns

    def call(self, ms):
        """A call that takes `ms` (a number or a function that gives one)."""

        def run(*_):
            self.now_ns += int((ms() if callable(ms) else ms) * 1e6)
            return torch.zeros(1)

        return run


@pytest.fixture
def clock(monkeypatch):
    """Time that passes in calls alone; the reference workload takes 1 ms."""
    clock = FakeClock()
    monkeypatch.setattr(module.time, "perf_counter_ns", clock)
    monkeypatch.setattr(module, "reference_workload", lambda device: clock.call(1.0))
    return clock


def test_every_round_has_each_in_turn_and_in_changing_order():
    """Otherwise a model would always run after the same neighbour."""
    log = []
    time_interleaved({name: lambda name=name: log.append(name) for name in "abc"}, 50, np.random.default_rng(0))
    rounds = [tuple(log[at : at + 6]) for at in range(0, len(log), 6)]
    assert all(order[::2] == order[1::2] for order in rounds)  # each twice in a row
    assert all(sorted(order[::2]) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) == 6


def test_only_the_second_of_two_calls_counts(clock):
    """The first one brings back what the other models pushed out of the caches, as it is in a loop of its own."""
    durations = itertools.cycle([9.0, 2.0])
    times = time_interleaved({"a": clock.call(lambda: next(durations)), "b": clock.call(1.0)}, 20, np.random.default_rng(0))
    assert set(times["a"]) == {2.0}


def test_a_turn_calls_until_a_fast_model_has_settled_in(clock):
    """Its second call still pays for the model before it, whose threads may spin for a while too."""
    calls = []
    times = time_interleaved(
        {"fast": clock.call(lambda: calls.append("fast") or 0.25), "slow": clock.call(lambda: calls.append("slow") or 3.0)},
        10, np.random.default_rng(0), warm_s=1e-3,
    )  # fmt: skip
    assert (calls.count("fast"), calls.count("slow")) == (10 * (4 + 1), 10 * (2 + 1))
    assert set(times["fast"]) == {0.25}


def test_a_fast_model_is_as_fast_in_turns_as_in_a_loop_of_its_own(clock):
    """A runtime with a thread of its own needs some calls after each pause: they are no part of what a served model takes."""
    since_the_other = itertools.count()

    def fast():
        return 0.2 * (1 + 0.5 ** next(since_the_other))

    def other():
        nonlocal since_the_other
        since_the_other = itertools.count()
        return 1.5

    found = measure_latency(clock.call(fast), clock.call(other), torch.zeros(1))

    assert found.p50_ms.value == pytest.approx(0.2, rel=0.07)  # its second call takes half as long again
    assert found.speedup.value == pytest.approx(7.5, rel=0.07)


def test_the_order_is_the_seeds():
    """A measurement is as reproducible as time can be."""

    def order(seed):
        log = []
        time_interleaved({"a": lambda: log.append("a"), "b": lambda: log.append("b")}, 30, np.random.default_rng(seed))
        return log

    assert order(1) == order(1) != order(2)


def test_warm_up_is_called_but_not_counted(clock):
    """The first calls allocate, and are slow."""
    calls = []
    found = measure_latency(
        clock.call(lambda: calls.append(1) or 1.0), clock.call(1.0), torch.zeros(1), samples=20, warmup=3, min_seconds=0
    )
    assert len(calls) == 1 + (1 + 2 * 2) + 3 * 20  # the first answer, the warm-up, the samples
    assert found.samples == 20


def test_the_collector_rests_while_timing_and_comes_back_even_after_an_error():
    """Its pauses would be added to some random call."""
    seen = []
    time_interleaved({"a": lambda: seen.append(gc.isenabled())}, 2, np.random.default_rng(0))
    assert seen == [False] * 4
    with pytest.raises(ZeroDivisionError):
        time_interleaved({"a": lambda: 1 // 0}, 1, np.random.default_rng(0))
    assert gc.isenabled()


def test_drift_cancels_in_the_ratio(clock):
    """The machine gets three times slower meanwhile, but the candidate stays twice as fast."""

    def slowdown():
        return 1 + clock.now_ns / 1e9

    found = measure_latency(clock.call(lambda: 2 * slowdown()), clock.call(lambda: 4 * slowdown()), torch.zeros(7, 1), samples=200)
    assert found.batch_size == 7
    assert found.speedup.value == pytest.approx(2, rel=0.02)
    assert found.speedup.low <= 2 <= found.speedup.high
    assert found.baseline_p50_ms > 4.5


def test_fast_calls_get_more_rounds(clock):
    """Until 0.9 s are filled: 9 ms a round, everything called three times, make 100 rounds."""
    found = measure_latency(clock.call(1.0), clock.call(1.0), torch.zeros(1), min_seconds=0.9)
    assert found.samples == 100
    assert (found.p50_ms.value, found.yardstick_ms, found.speedup.value) == (1.0, 1.0, 1.0)


def test_very_fast_calls_stop_at_a_thousand_rounds(clock):
    """More rounds would add nothing."""
    assert measure_latency(clock.call(0.001), clock.call(0.001), torch.zeros(1), min_seconds=60).samples == 1000


def test_slow_calls_get_fewer_rounds_and_no_percentile_they_cannot_carry(clock):
    """Noise of 10% never gets narrow: 98 ms a round fill what the warm-up leaves of 10 s, 2 s a round make the fewest rounds."""
    rng = np.random.default_rng(0)
    slow = measure_latency(
        clock.call(lambda: 24 * rng.lognormal(0, 0.2)), clock.call(lambda: 24 * rng.lognormal(0, 0.2)), torch.zeros(1), samples=500
    )
    assert 70 <= slow.samples < 100
    assert slow.p90_ms is not None
    slower = measure_latency(clock.call(lambda: 1000 * rng.lognormal(0, 0.2)), clock.call(1000.0), torch.zeros(1))
    assert slower.samples == 6
    assert slower.p90_ms is None
    assert slower.p99_ms is None


def test_a_final_timing_goes_on_until_the_p90_is_known(clock):
    """Calls of 24 ms without noise: the interval is narrow long before 64 rounds, which fit into the time."""
    hurried = measure_latency(clock.call(24.0), clock.call(24.0), torch.zeros(1))
    final = measure_latency(clock.call(24.0), clock.call(24.0), torch.zeros(1), samples=200, with_p90=True)
    slow = measure_latency(clock.call(300.0), clock.call(300.0), torch.zeros(1), samples=200, with_p90=True)

    assert hurried.p90_ms is None
    assert (final.samples, final.p90_ms) == (64, 24.0)
    assert (slow.samples, slow.p90_ms) == (3, None)


def test_warm_up_of_slow_calls_is_cut_short(clock):
    """Ten rounds of ten seconds would cost more than the measurement."""
    calls = []
    measure_latency(clock.call(lambda: calls.append(1) or 10_000), clock.call(0.1), torch.zeros(1), warmup=10, max_seconds=10)
    assert len(calls) == 1 + 1 + 3  # the first answer, a round of warm-up, the fewest samples


def rounds_before(ms_a_round, samples, min_seconds):
    """How many rounds fast calls had before slow ones were sampled by their interval."""
    return max(samples, min(math.ceil(min_seconds / (ms_a_round / 1e3)), 1000))


@given(st.integers(10, 40_000), st.one_of(st.none(), st.integers(10, 40_000)), st.integers(7, 200), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_fast_calls_get_exactly_as_many_rounds_as_ever(candidate_us, baseline_us, samples, min_seconds):
    """As long as `samples` rounds take up to two seconds, no interval is asked: constant times would be narrow at once."""
    candidate_ms, baseline_ms = candidate_us / 1e3, baseline_us and baseline_us / 1e3
    ms_a_round = sum(max(1.0, ms if ms >= 5 else 2 * ms) + ms for ms in (candidate_ms, baseline_ms, 1.0) if ms)
    assume(samples * ms_a_round < 2000)
    assume(abs(min_seconds * 1e3 / ms_a_round - round(min_seconds * 1e3 / ms_a_round)) > 1e-6)  # where rounding decides
    clock = FakeClock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "perf_counter_ns", clock)
        patch.setattr(module, "reference_workload", lambda device: clock.call(1.0))
        baseline = None if baseline_ms is None else clock.call(baseline_ms)
        found = measure_latency(clock.call(candidate_ms), baseline, torch.zeros(1), samples=samples, min_seconds=min_seconds)
    assert found.samples == rounds_before(ms_a_round, samples, min_seconds)


def test_slow_calls_are_sampled_until_the_interval_is_narrow(clock, monkeypatch):
    """The more the times vary, the more rounds it takes, up to those that fill the time. More rounds narrow one run alone."""
    monkeypatch.setattr(module, "beyond_one_run", lambda ratio: ratio)
    rounds = []
    for spread in (0.0, 0.015, 0.08):
        rng = np.random.default_rng(1)
        candidate = clock.call(lambda rng=rng, spread=spread: 60 * rng.lognormal(0, spread))
        baseline = clock.call(lambda rng=rng, spread=spread: 120 * rng.lognormal(0, spread))
        found = measure_latency(candidate, baseline, torch.zeros(1))
        assert found.samples > 40 or relative_width(found.speedup) <= NARROW
        rounds.append(found.samples)
    assert rounds[0] == 10 < rounds[1] <= 55  # rounds of 180 ms, and of the reference workload, for two seconds
    assert 40 < rounds[2] <= 55


@pytest.mark.parametrize(("spread", "fewest", "most"), [(0.0, 6, 6), (0.01, 6, 8), (0.3, 10, 16)])
def test_rounds_that_take_long_are_few_however_noisy_the_machine_is(clock, spread, fewest, most):
    """The 0.3 s rounds of a large model fill four seconds, not ten: a search of minutes times several models."""
    rng = np.random.default_rng(1)
    candidate, baseline = (clock.call(lambda ms=ms: ms * rng.lognormal(0, spread)) for ms in (100, 200))
    assert fewest <= measure_latency(candidate, baseline, torch.zeros(1)).samples <= most


@pytest.mark.parametrize(("spread", "fewest", "most"), [(0.002, 3.0, 3.2), (0.01, 3.0, 5.0), (0.05, 5.5, 6.0)])
def test_slow_calls_that_hardly_differ_take_three_rounds_and_the_interval_holds_the_truth_as_often(
    clock, monkeypatch, spread, fewest, most
):
    """A round of a large model takes seconds. That its end depends on the times must not make the interval too sure of itself."""
    monkeypatch.setattr(module, "beyond_one_run", lambda ratio: ratio)
    rounds, held = [], np.zeros(2)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        candidate, baseline = (
            clock.call(lambda ms=ms, rng=rng: ms * rng.lognormal(0, spread / math.sqrt(2))) for ms in (600.0, 1800.0)
        )
        found = measure_latency(candidate, baseline, torch.zeros(1), seed=seed)
        rounds.append(found.samples)
        held += found.speedup.low <= 3 <= found.speedup.high, found.p50_ms.low <= 600 <= found.p50_ms.high
    assert fewest <= np.mean(rounds) <= most
    assert (held >= 184).all()  # 95% is promised, 92% is the alarm; the range of three rounds would hold it in 75%


def test_models_that_have_answered_are_not_asked_to(clock):
    """Their first calls took place while others worked. Nothing else changes."""
    calls = []
    slow = clock.call(lambda: calls.append(1) or 2000.0)
    found = measure_latency(slow, None, torch.zeros(3, 1), have_answered=True)
    assert len(calls) == found.samples == 3


def test_who_needs_less_precision_takes_fewer_rounds(clock):
    """A verdict with a tolerance of 25% needs no interval of 2%."""
    rounds = []
    for narrow in (NARROW, 0.25 / 3):
        rng = np.random.default_rng(1)
        candidate = clock.call(lambda rng=rng: 150 * rng.lognormal(0, 0.05))
        rounds.append(measure_latency(candidate, None, torch.zeros(1), narrow=narrow).samples)
    assert rounds[1] < rounds[0] / 2


def test_what_slows_whole_rounds_does_not_keep_the_ratio_wide(clock):
    """The caller needs the speed-up: a machine that gets slower needs no more rounds for it."""
    began = clock.now_ns

    def slowdown():
        return 1 + (clock.now_ns - began) / 30e9

    found = measure_latency(clock.call(lambda: 300 * slowdown()), clock.call(lambda: 300 * slowdown()), torch.zeros(1))
    assert relative_width(found.p50_ms) > NARROW
    assert found.samples < 12


@pytest.mark.parametrize(("ms", "calls_a_turn"), [(49.0, 2), (50.0, 1)])
def test_a_slow_model_is_called_once_a_turn(clock, ms, calls_a_turn):
    """It fills the caches by itself; beside it, a fast model still settles in: two calls before the one that counts."""
    calls, others = [], []
    found = measure_latency(
        clock.call(lambda: calls.append(1) or ms), clock.call(lambda: others.append(1) or 1.0), torch.zeros(1), warmup=2
    )
    assert len(calls) == 1 + (1 + calls_a_turn) + calls_a_turn * found.samples
    assert len(others) == 1 + (1 + 2) + 3 * found.samples


def test_one_slow_first_call_makes_no_model_slow(clock):
    """A first call compiles, allocates or reads; the median of the warm-up decides."""
    durations = itertools.chain([500.0, 500.0], itertools.repeat(1.0))
    calls = []
    found = measure_latency(clock.call(lambda: calls.append(1) or next(durations)), clock.call(1.0), torch.zeros(1))
    assert len(calls) >= 2 * found.samples
    assert found.samples == 64


def test_alone_a_model_takes_turns_with_the_reference_workload(clock):
    """One model is called, not two: a slow one once a turn. Against itself it is neither faster nor slower."""
    calls = []
    found = measure_latency(clock.call(lambda: calls.append(1) or 2000.0), None, torch.zeros(3, 1))
    assert len(calls) == 1 + 3  # the first answer, then every call counts
    assert (found.batch_size, found.samples, found.yardstick_ms) == (3, 3, 1.0)
    assert found.p50_ms == Interval(2000.0, 2000.0, 2000.0)
    assert found.baseline_p50_ms == 2000.0
    assert found.speedup == Interval(1.0, 1.0, 1.0)


def test_a_fast_model_alone_has_the_interval_of_its_median(clock):
    """Its speed-up has no spread, its time has."""
    rng = np.random.default_rng(0)
    found = measure_latency(clock.call(lambda: rng.lognormal(0, 0.3)), None, torch.zeros(1))
    assert found.samples >= 64
    assert found.p50_ms.low < found.p50_ms.value < found.p50_ms.high
    assert found.speedup == Interval(1.0, 1.0, 1.0)


def test_a_real_model_is_measured_against_itself():
    """All fields of a real measurement hang together."""
    model = torch.nn.Linear(8, 8).eval()
    found = measure_latency(model, model, torch.randn(3, 8), samples=32, min_seconds=0)
    assert found.batch_size == 3
    assert found.samples == 32
    assert 0 < found.p50_ms.low <= found.p50_ms.value <= found.p50_ms.high
    assert 0 < found.speedup.low <= found.speedup.value <= found.speedup.high


def test_the_reference_workload_is_the_same_work_every_time_and_leaves_the_seed_alone():
    """It must not depend on the task, nor change it."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = reference_workload()(), reference_workload()()
    assert torch.equal(first, second)
    assert torch.equal(torch.rand(1), expected)


@given(st.integers(1, 1500), st.sampled_from([0.9, 0.95, 0.97, 0.99]))
@settings(max_examples=60, deadline=None)
def test_tail_latency_is_the_early_stopping_rule(n, percentile):
    """Oracle: the rule of MLPerf with the binomial sum written out in logarithms."""

    def probability(slow_calls):
        logs = [
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(1 - percentile)
            + (n - k) * math.log(percentile)
            for k in range(slow_calls + 1)
        ]
        return sum(map(math.exp, logs))

    allowed = -1
    while allowed + 1 <= n and probability(allowed + 1) <= 0.01:
        allowed += 1
    times = np.random.default_rng(n).permutation(n).astype(float)
    assert tail_latency(times, percentile) == (None if allowed < 1 else n - allowed)


@pytest.mark.parametrize(("percentile", "fewest"), [(0.90, 64), (0.95, 130), (0.97, 219), (0.99, 662)])
def test_a_percentile_needs_its_samples(percentile, fewest):
    """The counts that the literature gives."""
    assert tail_latency(np.arange(fewest - 1.0), percentile) is None
    assert tail_latency(np.arange(float(fewest)), percentile) == fewest - 1


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Coverage of the bootstrap on independent times: 95% is promised, 90% of 120 draws is the alarm."""
    held = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        candidate, baseline = rng.lognormal(0, 0.2, 64), 2 * rng.lognormal(0, 0.2, 64)
        _, speedup = module._intervals(candidate, baseline, rng)
        held += speedup.low <= 2 <= speedup.high
    assert held >= 108


def test_the_interval_of_a_speedup_holds_what_other_runs_of_the_same_models_find():
    """Runs differ by 1% besides the noise of their calls: one run sees nothing of it, and its own interval is too narrow."""
    held = np.zeros(2)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        run = 4 * math.exp(rng.normal(0, 0.01))
        _, own = module._intervals(rng.lognormal(0, 0.02, 64), run * rng.lognormal(0, 0.02, 64), rng)
        beyond = beyond_one_run(own)
        held += own.low <= 4 <= own.high, beyond.low <= 4 <= beyond.high
    assert held[0] < 80
    assert held[1] >= 92


@given(st.floats(0.01, 100), st.floats(1, 2), st.floats(1, 2), st.floats(0, 1))
def test_a_widened_interval_holds_both_errors(value, below, above, more):
    """And it is no wider than both added."""
    found = widened(Interval(value, value / below, value * above), more)
    assert max(below, math.exp(more)) <= value / found.low * (1 + 1e-9) <= below * math.exp(more) * (1 + 1e-8)
    assert max(above, math.exp(more)) <= found.high / value * (1 + 1e-9) <= above * math.exp(more) * (1 + 1e-8)


@pytest.mark.parametrize("n", [7, 16])
def test_the_interval_of_few_rounds_holds_the_truth_as_often(n):
    """A bootstrap of so few rounds would hold it in 80% of the draws."""
    held = np.zeros(2)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p50, speedup = module._intervals(rng.lognormal(0, 0.03, n), 2 * rng.lognormal(0, 0.03, n), rng)
        held += p50.low <= 1 <= p50.high, speedup.low <= 2 <= speedup.high
    assert (held >= 182).all()  # 95% is promised, 91% is the alarm


@given(st.integers(6, 60))
def test_the_ranks_of_the_interval_are_those_of_the_sign_test(n):
    """Oracle: the binomial sum in whole numbers. One rank further in would hold the median in less than 95% of the cases."""

    def missed(rank):
        return 2 * sum(math.comb(n, k) for k in range(rank)) / 2**n

    interval = module._ranked(np.random.default_rng(n).permutation(n).astype(float))
    rank = int(interval.low) + 1
    assert interval.high == n - rank
    assert missed(rank) <= 0.05 < missed(rank + 1)


@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=5))
def test_few_times_have_students_interval(times):
    """Oracle: scipy's own, of the mean logarithm, at the confidence of the range of six."""
    logs = np.log(times)
    assume(logs.std() > 1e-6)
    low, high = np.exp(stats.t.interval(0.97, len(times) - 1, logs.mean(), stats.sem(logs)))
    found = module._ranked(np.array(times))
    assert found.value == np.median(times)
    assert found.low == pytest.approx(min(low, found.value), rel=1e-9)
    assert found.high == pytest.approx(max(high, found.value), rel=1e-9)


@pytest.mark.parametrize(
    ("ms", "spread", "samples", "settled"),
    [(300.0, 0.002, 64, True), (300.0, 0.3, 64, True), (0.5, 0.0, 200, False), (5.0, 0.0, 64, True), (5.0, 0.0, 65, False)],
)
def test_a_final_timing_would_tell_no_more_of_slow_calls(clock, ms, spread, samples, settled):
    """Fast calls are timed again with more samples. Slow ones would get as few, and beside noisy neighbours as wide an interval."""
    rng = np.random.default_rng(0)
    found = measure_latency(clock.call(lambda: ms * rng.lognormal(0, spread)), clock.call(ms), torch.zeros(1))
    assert is_settled(found, samples) is settled


def test_a_final_timing_takes_the_rounds_for_a_p90_where_the_untouched_model_has_one(clock):
    """The search ends earlier, once the interval is narrow; the bundle would never get its p90."""
    found = measure_latency(clock.call(80.0), clock.call(90.0), torch.zeros(1))
    assert found.samples < 64
    assert found.p90_ms is None
    assert is_settled(found, 64)
    assert not is_settled(found, 64, knows_p90=True)
