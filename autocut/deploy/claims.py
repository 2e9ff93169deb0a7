"""Compare what a fresh process found with what the manifest claims. Arithmetic only, no torch.

The tolerances, and why they are what they are:

- *Outputs*, as the largest deviation relative to the largest reference output. Each dtype has its own tolerance: 1e-3 for float32
  (another kernel sums in another order), 2e-2 for 16-bit floats (8 bits of mantissa, a few layers), 5e-2 for integers (one step of
  a 7-bit activation scale is 0.8%, and one flipped rounding travels through the layers). On the machine that wrote the bundle the
  deviation is normally 0.
- *Accuracy*: half a point of the metric, or one example where there are fewer than 200: rounding flips only predictions that were
  undecided.
- *Latency*: the found interval must begin below the end of the claimed one plus 25%. It is compared as it is, and divided by the
  yardstick timed in the same loop: a machine that is slower today is no failure, and neither is a neighbour who slows the yardstick
  down and not the model (seen: twice). A claim of half the latency passes neither; being faster than claimed is no failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autocut.deploy.manifest import Manifest
from autocut.measurement import Interval, Latency

LATENCY_TOLERANCE = 0.25
ACCURACY_TOLERANCE = 0.005


@dataclass(frozen=True)
class Check:
    """One claim against what was found. `told` is a line for a person; a check that does not apply is ok and says why."""

    name: str
    claim: str
    found: str
    ok: bool
    told: str


@dataclass(frozen=True)
class FoundLatency:
    """Candidate and yardstick, timed interleaved at one batch size, as the last attempt found them."""

    batch_size: int
    p50_ms: Interval
    yardstick_ms: float
    attempts: int


@dataclass(frozen=True)
class Findings:
    """What the fresh process found. `failure` is the reason why it did not get to the end; then the rest is missing."""

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


def latency_agrees(claim: Latency, found_p50_ms: Interval, found_yardstick_ms: float, tolerance: float = LATENCY_TOLERANCE) -> bool:
    """Whether the found median is not above the claimed one widened by `tolerance`, as it is or in units of the yardstick.

    Only slower is a broken promise: a fresh process that serves nothing but this model may well be faster.
    """
    ceiling = claim.p50_ms.high * (1 + tolerance)
    corrected = _scaled(found_p50_ms, claim.yardstick_ms / found_yardstick_ms)
    return min(found_p50_ms.low, corrected.low) <= ceiling


def judge(manifest: Manifest, findings: Findings, *, latency_tolerance: float = LATENCY_TOLERANCE) -> tuple[Check, ...]:
    """Turn findings into checks, in the order in which a reader asks: does it run, is it right, does it cost what it says."""
    if findings.failure is not None:
        return (
            Check(
                "runs",
                "loads and answers in a fresh process",
                findings.failure,
                False,
                f"the bundle does not run: {findings.failure}",
            ),
        )
    checks = [_no_user_code(findings), _outputs(manifest, findings), _examples_accuracy(manifest, findings)]
    if findings.test_accuracy is not None:
        checks.append(_test_accuracy(manifest, findings))
    checks.append(_size(manifest, findings))
    checks.extend(_latencies(manifest, findings, latency_tolerance))
    checks.extend(_reported(manifest, findings))
    return tuple(checks)


def _no_user_code(findings: Findings) -> Check:
    found = ", ".join(findings.foreign_modules[:3]) or "none"
    told = (
        "runs without the code that trained it"
        if not findings.foreign_modules
        else f"code from outside autocut and its libraries was loaded: {found}"
    )
    return Check("no user code", "none", found, not findings.foreign_modules, told)


def _outputs(manifest: Manifest, findings: Findings) -> Check:
    tolerance, deviation = findings.output_tolerance, findings.output_deviation
    ok = deviation is not None and deviation <= tolerance
    found = "none" if deviation is None else f"{deviation:.2g}"
    told = f"outputs deviate by {found} of the largest output from the stored ones, {tolerance:g} is allowed for {manifest.dtype}"
    return Check("outputs", f"<= {tolerance:g}", found, ok, told)


def _examples_accuracy(manifest: Manifest, findings: Findings) -> Check:
    claim = manifest.verification
    if claim.accuracy is None:
        told = f"metric {manifest.metric!r} is the task's own code, which is not run here: only the outputs were compared"
        return Check("accuracy on examples", "not claimed", "not measured", True, told)
    return _accuracy("accuracy on examples", claim.accuracy, findings.examples_accuracy, claim.examples)


def _test_accuracy(manifest: Manifest, findings: Findings) -> Check:
    claim = manifest.measurement.accuracy
    name = f"accuracy on {claim.split}"
    if findings.test_examples != claim.examples:
        told = f"{name} is claimed for {claim.examples} examples, got {findings.test_examples}"
        return Check(name, f"{claim.examples} examples", f"{findings.test_examples} examples", False, told)
    return _accuracy(name, claim.metric.value, findings.test_accuracy, claim.examples)


def _accuracy(name: str, claim: float, found: float | None, examples: int) -> Check:
    tolerance = max(ACCURACY_TOLERANCE * max(1.0, abs(claim)), 1 / examples)
    ok = found is not None and abs(found - claim) <= tolerance + 1e-9
    shown = "none" if found is None else f"{found:.4g}"
    return Check(
        name,
        f"{claim:.4g}",
        shown,
        ok,
        f"{name} is {shown}, {claim:.4g} was claimed (tolerance {tolerance:.2g}, {examples} examples)",
    )


def _size(manifest: Manifest, findings: Findings) -> Check:
    claim, found = manifest.measurement.cost.size_bytes, findings.size_bytes
    return Check("size", f"{claim} bytes", f"{found} bytes", found == claim, f"the model is {found} bytes, {claim} were claimed")


def _latencies(manifest: Manifest, findings: Findings, tolerance: float) -> list[Check]:
    cost = manifest.measurement.cost
    found = {latency.batch_size: latency for latency in findings.latencies}
    if findings.machine != cost.machine:
        told = f"measured on another machine ({cost.machine}; this one is {findings.machine}), latency not compared"
        return [
            Check(f"latency at batch {claim.batch_size}", _told(claim.p50_ms), "not compared", True, told)
            for claim in cost.latencies
        ]
    return [_latency(claim, found.get(claim.batch_size), tolerance) for claim in cost.latencies]


def _latency(claim: Latency, found: FoundLatency | None, tolerance: float) -> Check:
    name = f"latency at batch {claim.batch_size}"
    if found is None:
        return Check(name, _told(claim.p50_ms), "none", False, f"{name} could not be measured")
    ok = latency_agrees(claim, found.p50_ms, found.yardstick_ms, tolerance)
    drift = found.yardstick_ms / claim.yardstick_ms
    compared = f"{_told(found.p50_ms)}, {_told(claim.p50_ms)} was claimed"
    told = f"{name} is {compared} (tolerance {tolerance:.0%}; the yardstick takes {drift:.2f} times as long as then"
    repeated = f", attempt {found.attempts})" if found.attempts > 1 else ")"
    return Check(name, _told(claim.p50_ms), _told(found.p50_ms), ok, told + repeated)


def _reported(manifest: Manifest, findings: Findings) -> list[Check]:
    """Cold start and memory depend on what else the machine has in its caches: told, never a reason to refuse."""
    cost = manifest.measurement.cost
    return [
        _report("cold start", " (first start, no compiler cache)", cost.cold_start_ms, findings.cold_start_ms, _milliseconds),
        _report("peak memory", "", manifest.measurement.peak_memory_bytes, findings.peak_memory_bytes, _mebibytes),
    ]


def _report(name: str, how: str, claim: float | None, found: float | None, show: Callable[[float], str]) -> Check:
    claimed = "not claimed" if claim is None else show(claim)
    measured = "not measured" if found is None else show(found)
    told = f"{name}{how} is {measured}, at export, caches included, it was {claimed} (reported, not judged)"
    return Check(name, claimed, measured, True, told)


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:.1f} MiB"


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor)


def _told(interval: Interval) -> str:
    return f"{interval.value:.3g} ms [{interval.low:.3g}, {interval.high:.3g}]"


def failed(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Return the checks that refuse the bundle."""
    return tuple(check for check in checks if not check.ok)
