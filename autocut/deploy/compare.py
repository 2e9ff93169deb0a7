"""Compare two bundles on this machine, head to head: calls by turns in one fresh process, examples in pairs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from autocut.deploy.fresh_process import Turn
from autocut.deploy.manifest import Manifest, TensorSignature, check_files, read_manifest
from autocut.deploy.remeasure import compiled_note
from autocut.deploy.rerun import Rerun, RerunSide, rerun
from autocut.errors import InputError, NoResultError
from autocut.measurement import SIGNIFICANT, Accuracy, Interval


@dataclass(frozen=True)
class BundleComparison:
    """Two bundles, `a` and `b`, measured together; `manifests` are theirs.

    `shared` is the accuracy of both on the examples that both carry, in `b` with the paired difference to `a`; None where there is
    none. `not_comparable` says what the two do not share.
    """

    manifests: tuple[Manifest, Manifest]
    threads: int
    machine: str
    a: RerunSide
    b: RerunSide
    shared: tuple[Accuracy, Accuracy] | None
    not_comparable: tuple[str, ...]

    @property
    def speedups(self) -> dict[int, Interval]:
        """How much faster `b` is than `a`, by batch size."""
        return {latency.batch_size: latency.speedup for latency in self.b.latencies}

    @property
    def is_accuracy_tie(self) -> bool | None:
        """Whether the paired test finds no difference; None where there is nothing to compare."""
        p_value = None if self.shared is None else self.shared[1].p_value
        return None if p_value is None else p_value > SIGNIFICANT

    @property
    def is_size_tie(self) -> bool:
        """Whether both models have as many bytes."""
        return self.a.size_bytes == self.b.size_bytes


def compare_bundles(
    a: Path, b: Path, threads: int | None = None, *, alone: Turn = contextlib.nullcontext, working: Turn = contextlib.nullcontext
) -> BundleComparison:
    """Measure two bundles together with `threads`; None: as both were measured.

    Raises:
        BundleError: one is no readable bundle.
        InputError: they take other inputs, or were measured at other batch sizes or with other numbers of threads.
        VerificationError: a file differs from the one that a manifest names.
        NoResultError: one does not run here.
    """
    manifests = read_manifest(a), read_manifest(b)
    _require_same_inputs(*manifests)
    _require_common_sizes(*manifests)
    threads = _threads(*manifests) if threads is None else threads
    with working():
        for folder, manifest in zip((a, b), manifests, strict=True):
            check_files(folder, manifest)
    # A process of its own for A: the cold start of a model that is loaded after another one is too short.
    of_a = _ran(a, rerun(a, threads, alone=alone, working=working))
    both = rerun(b, threads, other=a, alone=alone, working=working)
    side_b, side_a = _ran(b, both), both.other
    if side_a is None or of_a.cold_start_ms is None:
        raise RuntimeError("a fresh process has answered for one bundle of two")
    side_a = replace(side_a, cold_start_ms=of_a.cold_start_ms)
    return BundleComparison(manifests, threads, both.machine, side_a, side_b, both.shared, _not_comparable(manifests, threads))


def is_tie(ratio: Interval) -> bool:
    """Whether a ratio cannot be told from 1."""
    return ratio.low <= 1 <= ratio.high


def _ran(folder: Path, run: Rerun) -> RerunSide:
    if run.side is None:
        raise NoResultError(f"bundle {folder} must run on this machine, but does not: {run.failure}", f"autocut verify {folder}")
    return run.side


def _require_same_inputs(a: Manifest, b: Manifest) -> None:
    told = [f"{manifest.structure} {', '.join(map(_spelled, manifest.inputs))}" for manifest in (a, b)]
    if told[0] != told[1]:
        raise InputError(
            f"two bundles must take the same inputs to be compared, got {told[0]} and {told[1]}", "compare bundles of one task"
        )


def _spelled(signature: TensorSignature) -> str:
    return f"{signature.name}: {signature.dtype}[{', '.join('n' if size is None else str(size) for size in signature.shape)}]"


def _require_common_sizes(a: Manifest, b: Manifest) -> None:
    sizes = [[latency.batch_size for latency in manifest.measurement.cost.latencies] for manifest in (a, b)]
    if not set(sizes[0]) & set(sizes[1]):
        raise InputError(
            f"two bundles must have a batch size in common, got {sizes[0]} and {sizes[1]}", "compare bundles of one study"
        )


def _threads(a: Manifest, b: Manifest) -> int:
    claimed = [manifest.measurement.cost.threads for manifest in (a, b)]
    if claimed[0] != claimed[1]:
        raise InputError(
            f"two bundles must be compared with one number of threads, got claims for {claimed[0]} and {claimed[1]}",
            f"--threads {max(claimed)}",
        )
    return claimed[0]


def _not_comparable(manifests: tuple[Manifest, Manifest], threads: int) -> tuple[str, ...]:
    a, b = manifests
    told = []
    if a.task != b.task:
        told.append(f"other tasks: {a.task} and {b.task}")
    if (a.metric, a.verification.kind) != (b.metric, b.verification.kind):
        told.append(f"other metrics: {a.metric} and {b.metric}")
    notes = [compiled_note(manifest, threads) for manifest in manifests]
    return (*told, *(f"{name}: {note}" for name, note in zip("AB", notes, strict=True) if note))
