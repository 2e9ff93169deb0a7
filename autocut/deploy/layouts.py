"""Ask a fresh process what the whole machine serves in some layouts. No torch here: `capacity_process` measures."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from autocut.counting import format_count
from autocut.deploy.claims import FoundCapacity, capacity_agrees
from autocut.deploy.fresh_process import FreshProcess, Turn
from autocut.deploy.manifest import Manifest
from autocut.measure.audit import audit_machine
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Layout

_MOST_S = 20.0
"""After so many seconds no other layout is begun..."""
_GRACE_S = 10.0
"""... and so many later the process of one that has begun is killed."""
_ATTEMPTS = 2


@dataclass(frozen=True)
class FoundLayouts:
    """What was measured, and which layouts were left out and why. If nothing was measured, `failure` is the reason."""

    failure: str | None = None
    layouts: tuple[Layout, ...] = ()
    left_out: tuple[str, ...] = ()


def ask_layouts(
    fresh: FreshProcess, question: Mapping[str, object], scratch: Path, left_s: float, *, alone: Turn, working: Turn
) -> FoundLayouts:
    """Have forks of `fresh` measure what `question` names (`capacity_process`), in at most about `left_s` seconds.

    Args:
        fresh: It has run no model yet.
        question: Without what is the same for all.
        scratch: A folder for the answer.
        left_s: No layout is begun after so many seconds.
        alone: Entered while it measures.
        working: Entered while the process starts.
    """
    most_s = min(_MOST_S, left_s)
    if most_s <= 0:
        return FoundLayouts("no time was left")
    report = scratch / "layouts.json"
    whole = {**question, "processors": processors_here(), "most_s": most_s}
    ended = fresh.ask_fork(whole, report, most_s + _GRACE_S, alone=alone, working=working)
    return FoundLayouts(ended) if ended else TypeAdapter(FoundLayouts).validate_json(report.read_text(encoding="utf-8"))


def measure_bundle_layouts(
    fresh: FreshProcess, bundle: Path, manifest: Manifest, shapes: Sequence[tuple[int, int]], *, alone: Turn, working: Turn
) -> FoundLayouts:
    """Measure the layouts `shapes` of a bundle on this machine, on inputs of its examples."""
    batch_size = manifest.measurement.cost.busiest.batch_size
    question = {"bundle": str(bundle.absolute()), "batch_size": batch_size, "layouts": shapes}
    with tempfile.TemporaryDirectory(prefix="autocut-capacity-") as scratch:
        return ask_layouts(fresh, question, Path(scratch), _MOST_S, alone=alone, working=working)


def find_capacity(
    fresh: FreshProcess, bundle: Path, manifest: Manifest, tolerance: float, *, alone: Turn, working: Turn
) -> FoundCapacity | None:
    """Run the best layout of a bundle again, and once more if it serves less than claimed; None where none is claimed."""
    capacity = manifest.measurement.capacity
    if capacity is None:
        return None
    here, there = (processors_here(), machine_fingerprint()), (capacity.processors, manifest.measurement.cost.machine)
    if here != there:
        return FoundCapacity(
            reason=f"it was measured on {format_count(there[0], 'processor')} of {there[1]}, these are {here[0]} of {here[1]}"
        )
    claim, attempts = capacity.best, 0
    while True:
        attempts += 1
        found = measure_bundle_layouts(fresh, bundle, manifest, [(claim.copies, claim.threads)], alone=alone, working=working)
        if found.failure is not None:
            return FoundCapacity(reason=found.failure)
        if attempts == _ATTEMPTS or capacity_agrees(claim, found.layouts[0], tolerance):
            return FoundCapacity(found.layouts[0], None, attempts)


@cache
def processors_here() -> int:
    """Return how many processors serve on this machine, or in this container."""
    return audit_machine().processors
