"""Latency on a busy machine: candidate, untouched baseline and a reference workload take turns in one loop.

Whatever slows the machine down for a while slows all of them down, so the ratio of the medians stays. Taking turns has a price:
the others push a model out of the processor's caches, which does not happen to a served model. So each turn calls a model for a
millisecond, at least twice, before the call that counts. The order changes from round to round.

Slow calls fill the caches anew by themselves, so a turn calls a slow model once. Measured on one thread of an AMD EPYC, 2026-11-28:
for calls of 50 ms and more the first call took 0.94 to 1.04 times as long as the second (ResNet-50 at batch 1 and 32, BERT-base at
batch 1 and 8, convolutions of 50 and 390 ms). For a call of 12 ms it took 1.02 times as long.

Fast calls are sampled a fixed number of times. Rounds of slow calls go on until the interval of the result is narrow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
from scipy.special import (
    bdtr,
    stdtrit,
)  # not scipy.stats: its import takes 0.4 s more, and verification, which holds the machine, imports this
from torch import Tensor

from autocut.measure.allocator import keep_memory
from autocut.measure.load import LoadMeter
from autocut.measure.settling import settle
from autocut.measure.turns import Times, reference_workload, time_interleaved, untimed_s
from autocut.measurement import Interval, Latency
from autocut.stages.device import CPU, Device
from autocut.stages.lowering import Predict
from autocut.task.batches import Inputs, batch_length, tensors

NARROW = 0.02
"""Calls are sampled until the 95% interval of the result is at most this wide, relative to the result."""
_SLOW_ROUND_S = 0.2
_NARROW_IF_SLOW, _LONGEST_IF_SLOW_S = 0.05, 4.0
"""... and slow rounds, of `_SLOW_ROUND_S` and more, until it is this wide, or until they have taken this long and are 6.

Beside noisy neighbours 2% is out of reach: 29 rounds of BERT-base at batch 1 (0.3 s a call) came to 4.5%, and took ten seconds of a
search of six minutes at each timing. Few models are compared where calls are slow, and what differs from run to run
(`_BETWEEN_RUNS`) is as wide."""
_CONFIDENT_SAMPLES = 6
"""The range of n independent calls holds their true median with a probability of 1 - 2^(1 - n), which is 97% for 6 calls."""
_FEWEST_SAMPLES = 3
"""Slow calls that hardly differ end earlier, where Student's interval is narrow. It is narrow by chance too, so it is one of 97%:
one of 95% would hold the truth in 93% of the measurements (`studies/timing/few_rounds.py`)."""
_OUTSIDE_STUDENT = 0.03
MOST_SAMPLES = 1000
_P90_ROUNDS = 64
"""The fewest calls from which `tail_latency` tells a p90."""
_UNHURRIED_S = 2.0
"""Nothing is saved before this many seconds. So models whose `samples` rounds take no longer get them all, narrow or not."""
_SLOW_CALL_MS = 50.0
"""A turn calls a model once if its call takes at least this long. The module's docstring has the figures."""
_FEWEST_TO_RESAMPLE = 64
"""The bootstrap of fewer rounds is too sure of itself: of 95% intervals 84% held the truth for 7 rounds, 86% for 16, 96% for 64
(200 to 400 draws, independent lognormal times). The interval from order statistics held it in 96 to 99% of them for 7 to 30."""
_RESAMPLED_ROUNDS = 400_000
_BETWEEN_RUNS = 0.015
"""Half the 95% interval of what differs from run to run, relative to the ratio of two models that are alike."""
_UNLIKE = 0.012
"""... and how much more it is for each e-fold of the ratio: neighbours slow down unlike models unequally.

One run sees nothing of it: neighbours come and go in seconds, and memory lies elsewhere in each process. Intervals of single runs
held the median of 20 runs in 10 to 15 of them, with this in 18 to 20 (`studies/repeatability`)."""
TIME_BETWEEN_RUNS = 0.05
"""Half the 95% interval by which a model's median differs from process to process, relative to it (`disturbance.claimable`)."""
_NO_SPEEDUP = Interval(1.0, 1.0, 1.0)
"""The speed-up of the untouched model over itself."""
_WARM_S = 0.001
"""How long a turn calls a model before the call that counts: at least once, and twice unless that takes five times as long.

After another model, the second call of a fast one takes 1.2 times as long as in a loop of its own (calls of 0.04 to 1.5 ms, ONNX
Runtime and OpenVINO), that of the untouched model 1.01 to 1.1 times; the third takes 1.03 to 1.1 times as long
(`studies/timing/settle_in.py`). With more than one thread, those of the model before it may spin for as long
(`measure/spinning.py`)."""
_WARMUP_SHARE = 0.1
"""The warm-up of slow calls ends after this share of `max_seconds`, but not before the first round. Each model has answered once
before that."""


def measure_latency(
    candidate: Predict,
    baseline: Predict | None,
    inputs: Inputs,
    *,
    samples: int = 64,
    warmup: int = 10,
    min_seconds: float = 0.3,
    max_seconds: float = 10.0,
    with_p90: bool = False,
    narrow: float = NARROW,
    seed: int = 0,
    have_answered: bool = False,
) -> Latency:
    """Time `candidate` against `baseline` on `inputs`, whose length is the batch size.

    Fast calls get more rounds than `samples`, until `min_seconds` are filled, but at most 1,000. If `samples` rounds take more than
    two seconds, rounds go on only until the 95% interval of the speed-up is narrow. Slow calls get at least 3 rounds, and 6 where
    it is not narrow by then, but no more than fit into `max_seconds`; rounds of more than 0.2 s get no more than fit into 4 s.

    From now on this process keeps the memory that it frees, as servers do (`allocator`). A GPU is first kept busy until its clocks
    have settled. Inputs lie there already, answers stay there, and a call lasts until its work is done.

    Args:
        candidate: A loaded model that answers with a tensor.
        baseline: The untouched model. If None, the candidate takes turns with the reference workload alone; its speed-up is then 1,
            and the interval that must get narrow is that of its median.
        inputs: Real inputs, already in the memory of the device that serves.
        samples: Number of rounds. A round calls each model for a while (`_WARM_S`), a slow one once, and times the last call.
        warmup: Rounds before the first one that counts. The first of them calls everything once.
        min_seconds: Shortest measurement of fast calls.
        max_seconds: Longest measurement of slow calls, warm-up included.
        narrow: Relative width of the interval that is narrow enough.
        with_p90: Take the 64 rounds that the p90 needs if they fit into `max_seconds`, narrow interval or not.
        seed: Seed of the order in each round and of the bootstrap.
        have_answered: Both models have answered these inputs once already, in this process and since it keeps its memory.
    """
    keep_memory()
    calls = _calls(candidate, baseline, inputs, answer_once=not have_answered)
    rng = np.random.default_rng(seed)
    load, began = LoadMeter(), time.perf_counter_ns()
    warm = _warm_up(calls, warmup, rng, _WARMUP_SHARE * max_seconds)
    left_s = max_seconds - (time.perf_counter_ns() - began) / 1e9
    once = _slow(warm)
    round_s = sum(_turn_s(float(np.median(times)) / 1e3, is_once=name in once) for name, times in warm.items())
    rounds, settled = _rounds(samples, round_s, min_seconds, left_s)
    settled = max(settled, _P90_ROUNDS) if with_p90 and rounds >= _P90_ROUNDS else settled
    if round_s >= _SLOW_ROUND_S:
        narrow, left_s = max(narrow, _NARROW_IF_SLOW), min(left_s, _LONGEST_IF_SLOW_S)
    counted = _counted(warm, once)
    before = len(counted["reference"])

    def is_narrow(later: Mapping[str, Times]) -> bool:
        return len(later["candidate"]) + before >= settled and relative_width(_result(_joined(counted, later))) <= narrow

    fewest = _CONFIDENT_SAMPLES - before
    later = time_interleaved(
        calls, rounds - before, rng, once=once, warm_s=_WARM_S, seconds=left_s, fewest=fewest, enough=is_narrow
    )
    return replace(_summarized(_joined(counted, later), batch_length(inputs), rng), load=load.read())


def is_settled(latency: Latency, samples: int, *, knows_p90: bool = False) -> bool:
    """Whether a final timing of `samples` rounds would tell no more: it would have no more of them, and know no p90 either.

    Where the untouched model `knows_p90` at this batch size, a final timing takes the rounds for it.

    Of slow calls it would have as few, and so an interval as wide: seven rounds of BERT-base at batch 8 (2 s a call, AMD EPYC) gave
    11% twice, and beside noisy neighbours 15% to 28% at both tries.
    """
    is_slow = latency.samples < _P90_ROUNDS and latency.p90_ms is None and not knows_p90
    has_as_many = latency.samples >= samples and latency.p90_ms is not None
    return (is_slow or has_as_many) and not latency.is_disturbed


def relative_width(interval: Interval) -> float:
    """Return the width of `interval`, relative to its value."""
    return (interval.high - interval.low) / interval.value


def tail_latency(times: Times, percentile: float, confidence: float = 0.99) -> float | None:
    """Return an upper bound of the `percentile` of latency that holds at 99% confidence; None where `times` are too few for it.

    This is the early-stopping rule of MLPerf Inference: drop the ``t - 1`` slowest calls and report the slowest of the rest, where
    ``t`` is the number of slow calls that this many samples allow. The 90th percentile needs 64 calls, the 99th needs 662.

    References:
        https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc
    """
    # The largest number of slow calls for which "this many or fewer" has at most the probability 1 - confidence.
    cumulated = bdtr(np.arange(len(times) + 1), len(times), 1 - percentile)
    allowed = int(np.searchsorted(cumulated, 1 - confidence, side="right")) - 1
    return None if allowed < 1 else float(np.sort(times)[-allowed])


def _warm_up(calls: Mapping[str, Callable[[], object]], rounds: int, rng: np.random.Generator, seconds: float) -> dict[str, Times]:
    """Return the times of up to `rounds` rounds. The first one calls everything once, and shows what is slow."""
    first = time_interleaved(calls, 1, rng, once=calls)
    left_s = seconds - sum(float(times[0]) for times in first.values()) / 1e3
    rest = time_interleaved(calls, max(rounds - 1, 0) if left_s > 0 else 0, rng, once=_slow(first), seconds=left_s)
    return {name: np.concatenate([first[name], rest[name]]) for name in calls}


def _counted(warm: Mapping[str, Times], once: Collection[str]) -> dict[str, Times]:
    """Return the times of the warm-up that count: its only round where every model is slow, else none.

    Each model has answered once before the warm-up. Where a single call is slow, its second one is as good as any later one.
    """
    counts = len(warm["reference"]) == 1 and warm.keys() - {"reference"} <= set(once)
    return {name: times if counts else times[:0] for name, times in warm.items()}


def _joined(earlier: Mapping[str, Times], later: Mapping[str, Times]) -> dict[str, Times]:
    return {name: np.concatenate([times, later[name]]) for name, times in earlier.items()}


def _slow(times: Mapping[str, Times]) -> frozenset[str]:
    return frozenset(name for name, of_name in times.items() if float(np.median(of_name)) >= _SLOW_CALL_MS)


def _rounds(samples: int, round_s: float, min_seconds: float, left_s: float) -> tuple[int, int]:
    """Return the most rounds, and the number of rounds from which on a narrow interval ends the measurement."""
    wanted = max(samples, min(math.ceil(min_seconds / round_s), MOST_SAMPLES))
    most = max(min(wanted, int(left_s / round_s)), _CONFIDENT_SAMPLES)
    return most, max(_FEWEST_SAMPLES, int(max(_UNHURRIED_S, min_seconds) / round_s))


def _turn_s(call_s: float, *, is_once: bool) -> float:
    """Return the seconds of a model's turn in a round: the calls before the one that counts, and that one."""
    return call_s if is_once else untimed_s(call_s, _WARM_S) + call_s


def _calls(candidate: Predict, baseline: Predict | None, inputs: Inputs, *, answer_once: bool) -> dict[str, Callable[[], object]]:
    """Return what is timed: the models, each called once if it shall `answer_once`, and the reference workload."""
    models, device = {"candidate": candidate} | ({} if baseline is None else {"baseline": baseline}), _device_of(inputs)
    calls = {name: _finishing(model, inputs, device) for name, model in models.items()}
    for call in calls.values() if answer_once else ():
        call()
    if not device.is_cpu:
        settle(calls["candidate"])
    return {**calls, "reference": reference_workload(device)}


def _device_of(inputs: Inputs) -> Device:
    kinds = {tensor.device.type for tensor in tensors(inputs).values()}
    return Device(kinds.pop()) if len(kinds) == 1 else CPU


def _finishing(predict: Predict, inputs: Inputs, device: Device) -> Callable[[], object]:
    """Bind the inputs. A GPU only queues the work, so wait for it."""

    def call() -> Tensor:
        return predict(inputs)

    def call_and_wait() -> Tensor:
        answer = predict(inputs)
        device.wait()
        return answer

    return call if device.is_cpu else call_and_wait


def _summarized(times: Mapping[str, Times], batch_size: int, rng: np.random.Generator) -> Latency:
    p50, speedup = _intervals(times["candidate"], times.get("baseline"), rng)
    if "baseline" in times:
        speedup = beyond_one_run(speedup)
    return Latency(
        batch_size=batch_size,
        samples=len(times["candidate"]),
        p50_ms=p50,
        p90_ms=tail_latency(times["candidate"], 0.90),
        p99_ms=tail_latency(times["candidate"], 0.99),
        baseline_p50_ms=float(np.median(times.get("baseline", times["candidate"]))),
        speedup=speedup,
        yardstick_ms=float(np.median(times["reference"])),
    )


def beyond_one_run(ratio: Interval) -> Interval:
    """Return the interval that holds the ratio of any run of the same two models, from the interval that one run gives."""
    return widened(ratio, math.hypot(_BETWEEN_RUNS, _UNLIKE * math.log(ratio.value)))


def widened(ratio: Interval, more: float) -> Interval:
    """Return `ratio` with an interval that also holds an independent error; `more` is half its 95% interval, as a logarithm."""
    value = ratio.value
    low, high = (math.exp(math.hypot(math.log(value / end), more)) for end in (ratio.low, ratio.high))
    return Interval(value, value / low, value * high)


def _result(times: Mapping[str, Times]) -> Interval:
    """Return the interval that the caller needs: of the speed-up, or of the median where there is no baseline."""
    return _ranked(times["candidate"]) if "baseline" not in times else ratio_of_medians(times["baseline"], times["candidate"])


def _intervals(candidate: Times, baseline: Times | None, rng: np.random.Generator) -> tuple[Interval, Interval]:
    """Return 95% intervals of the candidate's median and of the ratio of the medians baseline / candidate."""
    if len(candidate) < _FEWEST_TO_RESAMPLE:
        return _ranked(candidate), _NO_SPEEDUP if baseline is None else ratio_of_medians(baseline, candidate)
    resampled = _resampled_medians(candidate if baseline is None else np.stack([candidate, baseline]), rng)
    p50 = float(np.median(candidate))
    if baseline is None:
        return _interval(p50, resampled), _NO_SPEEDUP
    medians, of_baseline = resampled
    return _interval(p50, medians), _interval(float(np.median(baseline)) / p50, of_baseline / medians)


def _resampled_medians(times: Times, rng: np.random.Generator) -> Times:
    """Return medians of resamples of the last axis of `times`; each resample draws the same rounds of every row.

    A resample draws blocks of neighbouring rounds. A disturbance lasts for several calls, so drawing single rounds would give
    intervals that are too narrow (moving blocks, length by the cube root rule; Kuensch 1989).
    """
    n = times.shape[-1]
    block = max(1, math.ceil(2 * n ** (1 / 3)))
    resamples = min(max(_RESAMPLED_ROUNDS // n, 400), 1000)
    starts = rng.integers(0, n, (resamples, math.ceil(n / block)))
    drawn = ((starts[:, :, None] + np.arange(block)) % n).reshape(resamples, -1)[:, :n]
    return np.asarray(np.median(times[..., drawn], axis=-1))


def _interval(value: float, resampled: Times) -> Interval:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(value, min(float(low), value), max(float(high), value))


def _ranked(times: Times) -> Interval:
    """Return the median and its 95% interval from order statistics, the sign test turned round.

    The k-th smallest and the k-th largest of n independent times hold the true median between them unless fewer than k times lie on
    one side of it. So k is the largest number for which that is unlikely enough. Fewer than six times have Student's interval.
    """
    n = len(times)
    if 1 < n < _CONFIDENT_SAMPLES:
        return _of_few(times)
    one_side = bdtr(np.arange(n // 2 + 1), n, 0.5)  # the probability of "this many or fewer"
    k = max(int(np.searchsorted(one_side, 0.025, side="right")), 1)
    ranked = np.sort(times)
    return Interval(float(np.median(times)), float(ranked[k - 1]), float(ranked[-k]))


def _of_few(times: Times) -> Interval:
    """Return the median, and Student's interval of the mean logarithm: what is left where ranks say too little."""
    median = float(np.median(times))
    logs = np.log(times / median)
    half = float(stdtrit(len(times) - 1, 1 - _OUTSIDE_STUDENT / 2) * logs.std(ddof=1) / math.sqrt(len(times)))
    low, high = (median * math.exp(float(logs.mean()) + side) for side in (-half, half))
    return Interval(median, min(low, median), max(high, median))


def ratio_of_medians(baseline: Times, candidate: Times) -> Interval:
    """Return the ratio of the medians, and the interval of the median of the ratios of the rounds: what slows a round cancels."""
    value, of_rounds = float(np.median(baseline) / np.median(candidate)), _ranked(baseline / candidate)
    return Interval(value, min(of_rounds.low, value), max(of_rounds.high, value))
