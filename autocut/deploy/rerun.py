"""Run a bundle in a fresh process of this machine, once more and with any number of threads; nothing is compared with its claims.

A second model may take turns with it: the untouched model of its study, or another bundle. No torch here.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from autocut.deploy.fresh_process import FreshProcess, Turn
from autocut.deploy.layouts import FoundLayouts, measure_bundle_layouts
from autocut.deploy.manifest import read_manifest
from autocut.deploy.verify import TIMEOUT_S
from autocut.measurement import Accuracy, Latency

_COMMAND = (sys.executable, "-P", "-m", "autocut.deploy.rerun_process")


@dataclass(frozen=True)
class RerunSide:
    """What one bundle gave. `accuracy` is that of its own examples; None where they have none.

    With another model to take turns with, speed-ups of `latencies` refer to that one; without, they are 1 by definition.
    `output_deviation` is that from the stored outputs, and `output_tolerance` what `autocut verify` allows. `cold_start_ms` is None
    for a bundle that was loaded into a process with another one.
    """

    latencies: tuple[Latency, ...]
    accuracy: Accuracy | None
    output_deviation: float
    output_tolerance: float
    size_bytes: int
    cold_start_ms: float | None

    @property
    def answers_differ(self) -> bool:
        """Whether it answers otherwise on this machine than where it was made."""
        return self.output_deviation > self.output_tolerance


@dataclass(frozen=True)
class Rerun:
    """The answer of the fresh process. Where it did not get to the end, `failure` is the reason, and the rest is missing.

    `shared` is the accuracy of both bundles on the examples that both carry: that of the other one, then that of the first one with
    its paired difference to the other. It is None without such examples, or where a metric is missing. `whole_machine` has the
    layouts that were asked for; it is None where none was.
    """

    failure: str | None = None
    machine: str = ""
    side: RerunSide | None = None
    other: RerunSide | None = None
    shared: tuple[Accuracy, Accuracy] | None = None
    whole_machine: FoundLayouts | None = None


def rerun(
    bundle: Path,
    threads: int,
    *,
    untouched: Path | None = None,
    other: Path | None = None,
    shapes: Sequence[tuple[int, int]] = (),
    timeout_s: float = TIMEOUT_S,
    alone: Turn = contextlib.nullcontext,
    working: Turn = contextlib.nullcontext,
) -> Rerun:
    """Load and measure `bundle` in a fresh process.

    Args:
        bundle: A readable bundle.
        threads: Threads of a call.
        untouched: Folder of the artifact of the untouched model, with which the bundle then takes turns.
        other: Another bundle that takes the same inputs, with which it then takes turns. It is measured too.
        shapes: Layouts of the whole machine to measure too, copies and threads.
        timeout_s: Seconds after which the process is killed.
        alone: Entered while the fresh process measures.
        working: Entered for all other work.
    """
    with FreshProcess(threads, _COMMAND) as process, tempfile.TemporaryDirectory(prefix="autocut-rerun-") as scratch:
        report = Path(scratch) / "report.json"
        question = {
            "bundle": str(bundle.absolute()),
            "threads": threads,
            "untouched": None if untouched is None else str(untouched.absolute()),
            "other": None if other is None else str(other.absolute()),
            "report": str(report),
        }
        layouts = None
        if shapes:
            layouts = measure_bundle_layouts(process, bundle, read_manifest(bundle), shapes, alone=alone, working=working)
        ended = process.ask(question, timeout_s, alone=alone, working=working)
        if report.exists():
            found = TypeAdapter(Rerun).validate_python(json.loads(report.read_text(encoding="utf-8")))
            return replace(found, whole_machine=layouts)
        return Rerun(failure=ended or "it ended without a report")
