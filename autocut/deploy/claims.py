"""Compare what a fresh process found with the claims of the manifest. Arithmetic only, no torch.

The tolerances and their reasons:

- *Outputs*: the largest deviation, relative to the largest reference output. Each dtype has its own tolerance. 1e-3 for float32:
  another kernel sums in another order. 2e-2 for 16-bit floats: 8 bits of mantissa, a few layers. 5e-2 for integers: one step of a
  7-bit activation scale is 0.8%, and one flipped rounding travels through the layers. On the machine that wrote the bundle the
  deviation is usually 0.
- *Accuracy*: half a point of the metric, or one example where there are fewer than 200. Rounding flips only predictions that were
  undecided.
- *Latency*: the found interval must begin below the end of the claimed one plus 25%. It may do so as measured, or corrected by the
  reference workload, which is timed in the same loop. So a slower machine is no failure, and neither is a neighbour that slows the
  reference workload but not the model (seen twice). A claim of half the real latency fails both ways. A model may be faster than
  claimed. The claimed interval holds what other processes and hours of the machine find (`measure.disturbance.claimable`).
- *Whole machine*: as latency. What the best layout serves may be less than claimed by the same share, as measured or corrected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autocut.counting import format_count
from autocut.deploy.manifest import Manifest
from autocut.errors import quoted
from autocut.measurement import Interval, Latency, Layout, per_second

LATENCY_TOLERANCE = 0.25
ACCURACY_TOLERANCE = 0.005


@dataclass(frozen=True)
class Check:
    """One claim and its finding. `message` is a line for a person. A check that does not apply is ok, and its message says why.

    `claim_value` and `found_value` are the numbers that `claim` and `found` show: a metric, bytes, milliseconds, predictions a
    second. None where there is no number, or none to compare.
    """

    name: str
    claim: str
    found: str
    ok: bool
    message: str
    claim_value: float | None = None
    found_value: float | None = None


@dataclass(frozen=True)
class FoundLatency:
    """The last attempt at one batch size: the candidate, and the median of the reference workload timed in the same loop."""

    batch_size: int
    p50_ms: Interval
    reference_ms: float
    attempts: int


@dataclass(frozen=True)
class FoundCapacity:
    """The last attempt at the best layout; `reason` says why there is none."""

    layout: Layout | None = None
    reason: str | None = None
    attempts: int = 1


@dataclass(frozen=True)
class Findings:
    """What the fresh process found. If it did not get to the end, `failure` is the reason and the rest is missing.

    `capacity` is None where it was not looked at.
    """

    failure: str | None = None
    foreign_modules: tuple[str, ...] = ()
    output_deviation: float | None = None
    output_tolerance: float = 0.0
    examples_accuracy: float | None = None
    test_accuracy: float | None = None
    test_examples: int | None = None
    size_bytes: int | None = None
    latencies: tuple[FoundLatency, ...] = ()
    cold_start_ms: float | None = None
    peak_memory_bytes: int | None = None
    machine: str = ""
    capacity: FoundCapacity | None = None


def capacity_agrees(claim: Layout, found: Layout, tolerance: float = LATENCY_TOLERANCE) -> bool:
    """Whether `found` serves at least as much as `claim`, less `tolerance`, as measured or corrected by the reference workload."""
    corrected = found.per_s.high * claim.yardstick_per_s / found.yardstick_per_s
    return max(found.per_s.high, corrected) * (1 + tolerance) >= claim.per_s.low


def latency_agrees(claim: Latency, found_p50_ms: Interval, found_reference_ms: float, tolerance: float = LATENCY_TOLERANCE) -> bool:
    """Whether the found median, as measured or corrected by the reference workload, is within the claimed one plus `tolerance`.

    Only a slower model breaks a claim. A fresh process serves nothing but this model, so it may be faster.
    """
    ceiling = claim.p50_ms.high * (1 + tolerance)
    corrected = _scaled(found_p50_ms, claim.yardstick_ms / found_reference_ms)
    return min(found_p50_ms.low, corrected.low) <= ceiling


def latency_word(claim: Latency, found_p50_ms: Interval, found_reference_ms: float) -> str:
    """Say how the interval of a found median relates to the claimed one: as measured, else corrected by the reference workload."""
    corrected = _scaled(found_p50_ms, claim.yardstick_ms / found_reference_ms)
    for found, as_what in ((found_p50_ms, ""), (corrected, ", corrected by the reference workload")):
        if found.low <= claim.p50_ms.high and claim.p50_ms.low <= found.high:
            return f"as claimed{as_what}"
    return "faster than claimed" if found_p50_ms.high < claim.p50_ms.low else "slower than claimed"


def judge(manifest: Manifest, findings: Findings, *, latency_tolerance: float = LATENCY_TOLERANCE) -> tuple[Check, ...]:
    """Turn findings into checks, in the order of a reader's questions: does it run, is it right, does it cost what it claims."""
    if (failure := findings.failure) is not None:
        return (Check("runs", "loads and answers in a fresh process", failure, False, f"the bundle does not run: {failure}"),)
    checks = [_no_user_code(findings), _outputs(manifest, findings), _examples_accuracy(manifest, findings)]
    if findings.test_accuracy is not None:
        checks.append(_test_accuracy(manifest, findings))
    checks.append(_size(manifest, findings))
    checks.extend(_latencies(manifest, findings, latency_tolerance))
    checks.extend(_capacity(manifest, findings, latency_tolerance))
    checks.extend(_reported(manifest, findings))
    return tuple(checks)


def _no_user_code(findings: Findings) -> Check:
    if not findings.foreign_modules:
        return Check("no user code", "none", "none", True, "runs without the code that trained it")
    found = ", ".join(findings.foreign_modules[:3])
    return Check("no user code", "none", found, False, f"code from outside autocut and its libraries was loaded: {found}")


def _outputs(manifest: Manifest, findings: Findings) -> Check:
    tolerance, deviation = findings.output_tolerance, findings.output_deviation
    ok = deviation is not None and deviation <= tolerance
    found = "none" if deviation is None else f"{deviation:.2g}"
    message = (
        f"outputs deviate by {found} of the largest output from the stored ones, {tolerance:g} is allowed for {manifest.dtype}"
    )
    return Check("outputs", f"<= {tolerance:g}", found, ok, message, tolerance, deviation)


def _examples_accuracy(manifest: Manifest, findings: Findings) -> Check:
    claim = manifest.verification
    if claim.accuracy is None:
        why = "is not defined on so few examples"
        if claim.synthetic:
            why = "is not defined on synthetic examples"
        elif claim.kind is None:
            why = "is the task's own code, which is not run here"
        message = f"metric {quoted(manifest.metric)} {why}: only the outputs were compared"
        return Check("accuracy on examples", "not claimed", "not measured", True, message)
    counted = format_count(claim.examples, "example")
    if claim.test_examples is not None:
        accuracy = manifest.measurement.accuracy
        counted += (
            f"; at export {claim.test_examples:,} of {format_count(accuracy.examples, f'{accuracy.split} example')} were replayed"
        )
    return _accuracy("accuracy on examples", claim.accuracy, findings.examples_accuracy, claim.examples, counted)


def _test_accuracy(manifest: Manifest, findings: Findings) -> Check:
    claim, sample = manifest.measurement.accuracy, manifest.verification
    name = f"accuracy on {claim.split}"
    wanted = claim.examples if sample.test_examples is None else sample.test_examples
    if findings.test_examples != wanted:
        found = "none" if findings.test_examples is None else format_count(findings.test_examples, "example")
        message = f"{name} is claimed for {format_count(wanted, 'example')}, got {found}"
        return Check(name, format_count(wanted, "example"), found, False, message)
    if sample.test_examples is None:
        return _accuracy(name, claim.metric.value, findings.test_accuracy, wanted, format_count(wanted, "example"))
    return _accuracy(
        name, sample.test_accuracy, findings.test_accuracy, wanted, f"{wanted:,} of {format_count(claim.examples, 'example')}"
    )


def _accuracy(name: str, claim: float | None, found: float | None, examples: int, counted: str) -> Check:
    if claim is None:
        return Check(name, "not claimed", "not compared", True, f"{name} is not defined on {counted}")
    tolerance = max(ACCURACY_TOLERANCE * max(1.0, abs(claim)), 1 / examples)
    ok = found is not None and abs(found - claim) <= tolerance + 1e-9
    shown = "none" if found is None else f"{found:.4g}"
    message = f"{name} is {shown}, {claim:.4g} was claimed (tolerance {tolerance:.2g}, {counted})"
    return Check(name, f"{claim:.4g}", shown, ok, message, claim, found)


def _size(manifest: Manifest, findings: Findings) -> Check:
    claim, found = manifest.measurement.cost.size_bytes, findings.size_bytes
    message = f"the model is {found} bytes, {claim} were claimed"
    return Check("size", f"{claim} bytes", f"{found} bytes", found == claim, message, claim, found)


def _latencies(manifest: Manifest, findings: Findings, tolerance: float) -> list[Check]:
    cost = manifest.measurement.cost
    if findings.machine != cost.machine:
        message = f"measured on another machine ({cost.machine}; this one is {findings.machine}), latency not compared"
        return [
            Check(_latency_name(claim), _shown(claim.p50_ms), "not compared", True, message, claim.p50_ms.value)
            for claim in cost.latencies
        ]
    found = {latency.batch_size: latency for latency in findings.latencies}
    return [_latency(claim, found.get(claim.batch_size), tolerance) for claim in cost.latencies]


def _latency(claim: Latency, found: FoundLatency | None, tolerance: float) -> Check:
    name, claimed = _latency_name(claim), _shown(claim.p50_ms)
    if found is None:
        return Check(name, claimed, "none", False, f"{name} could not be measured", claim.p50_ms.value)
    drift = found.reference_ms / claim.yardstick_ms
    details = f"tolerance {tolerance:.0%}; the reference workload takes {drift:.2f} times as long as at export"
    if found.attempts > 1:
        details += f", attempt {found.attempts}"
    ok = latency_agrees(claim, found.p50_ms, found.reference_ms, tolerance)
    shown = _shown(found.p50_ms)
    word = latency_word(claim, found.p50_ms, found.reference_ms)
    message = f"{name} is {shown}, {claimed} was claimed: {word} ({details})"
    return Check(name, claimed, shown, ok, message, claim.p50_ms.value, found.p50_ms.value)


def _capacity(manifest: Manifest, findings: Findings, tolerance: float) -> list[Check]:
    capacity, found = manifest.measurement.capacity, findings.capacity
    if capacity is None or found is None:
        return []
    claim = capacity.best
    name, claimed = "whole machine", f"{per_second(claim.per_s.value)} as {claim}"
    if found.layout is None:
        message = f"{name}, claimed {claimed}, was not compared: {found.reason}"
        return [Check(name, claimed, "not compared", True, message, claim.per_s.value)]
    ok, shown = capacity_agrees(claim, found.layout, tolerance), per_second(found.layout.per_s.value)
    slower = claim.yardstick_per_s / found.layout.yardstick_per_s
    details = f"tolerance {tolerance:.0%}; the reference workload takes {slower:.2f} times as long as at export"
    if found.attempts > 1:
        details += f", attempt {found.attempts}"
    message = f"{name} serves {shown}, {claimed} was claimed ({details})"
    return [Check(name, claimed, shown, ok, message, claim.per_s.value, found.layout.per_s.value)]


def _latency_name(claim: Latency) -> str:
    return f"latency at batch {claim.batch_size}"


def _reported(manifest: Manifest, findings: Findings) -> list[Check]:
    """Cold start and memory depend on the machine's caches, so they are reported and never a reason to refuse the bundle."""
    cost = manifest.measurement.cost
    return [
        _report("cold start", " (first start, no compiler cache)", cost.cold_start_ms, findings.cold_start_ms, _milliseconds),
        _report("peak memory", "", manifest.measurement.peak_memory_bytes, findings.peak_memory_bytes, _mebibytes),
    ]


def _report(name: str, how: str, claim: float | None, found: float | None, show: Callable[[float], str]) -> Check:
    claimed = "not claimed" if claim is None else show(claim)
    measured = "not measured" if found is None else show(found)
    before = "it was not measured at export" if claim is None else f"at export it was {claimed}, caches included"
    message = f"{name}{how} is {measured}; {before} (reported, not judged)"
    return Check(name, claimed, measured, True, message, claim, found)


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:.1f} MiB"


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor)


def _shown(interval: Interval) -> str:
    return f"{interval.value:.3g} ms [{interval.low:.3g}, {interval.high:.3g}]"
