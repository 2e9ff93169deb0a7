"""The JSON documents of `autocut remeasure` and `autocut compare`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autocut.commands.again_sentences import bundle_sentences, study_sentences
from autocut.deploy.compare import BundleComparison, is_tie
from autocut.deploy.compare_studies import ComparedStudy, StudyComparison, values_on
from autocut.deploy.manifest import Manifest
from autocut.deploy.remeasure import Remeasured
from autocut.deploy.rerun import RerunSide
from autocut.schemas.attribution import (
    BundleSide,
    ClaimPart,
    CompareDocument,
    FoundPart,
    LatencyVerdict,
    PairedAccuracy,
    PickPart,
    RemeasureDocument,
    RemeasuredPart,
    StudySide,
)


def remeasure_document(target: str, found: Sequence[Remeasured]) -> RemeasureDocument:
    """Describe bundles that were measured again."""
    return RemeasureDocument(target=target, bundles=tuple(map(remeasured_part, found)))


def remeasured_part(one: Remeasured) -> RemeasuredPart:
    """Describe one bundle."""
    manifest, side = one.manifest, one.found.side
    found = None
    if side is not None:
        found = FoundPart(**_run(side), machine=one.found.machine, threads=one.threads, has_untouched=one.has_untouched)
    return RemeasuredPart(
        trial=manifest.trial,
        bundle=str(one.folder),
        sha256=manifest.digest,
        recipe=dict(manifest.recipe),
        claim=_claim(manifest),
        found=found,
        instance=None if one.price is None else one.price.instance,
        usd_per_million=one.usd_per_million,
        usd_at_claimed_price=one.usd_at_claimed_price,
        served=one.served,
        notes=one.notes,
        failure=one.failure,
    )


def bundles_document(names: tuple[str, str], compared: BundleComparison) -> CompareDocument:
    """Describe two bundles."""
    sides = [
        BundleSide(**_run(side), bundle=name, recipe=dict(manifest.recipe))
        for name, side, manifest in zip(names, (compared.a, compared.b), compared.manifests, strict=True)
    ]
    return CompareDocument(
        compared="bundles",
        a=sides[0],
        b=sides[1],
        sentences=bundle_sentences(compared),
        not_comparable=compared.not_comparable,
        threads=compared.threads,
        machine=compared.machine,
        latency=tuple(
            LatencyVerdict(batch_size=size, speedup_of_b=speedup, is_tie=is_tie(speedup))
            for size, speedup in compared.speedups.items()
        ),
        accuracy=None if compared.shared is None else PairedAccuracy(a=compared.shared[0], b=compared.shared[1]),
        is_accuracy_tie=compared.is_accuracy_tie,
        is_size_tie=compared.is_size_tie,
    )


def studies_document(names: tuple[str, str], compared: StudyComparison) -> CompareDocument:
    """Describe two studies."""
    a, b = (_study_side(name, side, compared.split) for name, side in zip(names, (compared.a, compared.b), strict=True))
    return CompareDocument(
        compared="studies",
        a=a,
        b=b,
        sentences=study_sentences(compared),
        not_comparable=compared.not_comparable,
        reference=None if compared.reference is None else dict(compared.reference),
        is_pick_tie=compared.is_pick_tie,
    )


def _study_side(name: str, side: ComparedStudy, split: str) -> StudySide:
    pick = side.pick
    part = None
    if pick is not None:
        part = PickPart(trial=pick.trial, recipe=dict(pick.recipe), values=dict(values_on(pick, split)), split=split)
    front = tuple(point.trial for point in side.front)
    return StudySide(study=name, front=front, hypervolume=side.hypervolume, share=side.share, pick=part)


def _run(side: RerunSide) -> dict[str, Any]:
    """The fields of a run. JSON has no infinity."""
    return {
        "latencies": side.latencies,
        "accuracy": side.accuracy,
        "output_deviation": side.output_deviation if math.isfinite(side.output_deviation) else None,
        "size_bytes": side.size_bytes,
        "cold_start_ms": side.cold_start_ms,
    }


def _claim(manifest: Manifest) -> ClaimPart:
    cost, economics, capacity = manifest.measurement.cost, manifest.economics, manifest.measurement.capacity
    return ClaimPart(
        machine=cost.machine,
        threads=cost.threads,
        latencies=cost.latencies,
        size_bytes=cost.size_bytes,
        cold_start_ms=cost.cold_start_ms,
        examples_accuracy=manifest.verification.accuracy,
        instance=None if economics is None else economics.instance,
        usd_per_million=None if economics is None else economics.usd_per_million,
        served=None if capacity is None else capacity.best,
    )
