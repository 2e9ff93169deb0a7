"""Measure bundles again: on another machine, with another number of threads, or later. Nothing is searched or overwritten.

A claim stays what it was. What is found now stands beside it, and nothing is judged, except that the bundle must run, and answer as
it did where it was made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autocut.counting import format_count
from autocut.deploy.devices import device_named
from autocut.deploy.fresh_process import Turn
from autocut.deploy.layouts import processors_here
from autocut.deploy.manifest import Manifest, check_files, read_manifest
from autocut.deploy.rerun import Rerun, rerun
from autocut.deploy.versions import versions_note
from autocut.errors import InputError, NoResultError, VerificationError
from autocut.measure.capacity import shapes_for
from autocut.measure.machine import machine_fingerprint
from autocut.measure.processor import this_host
from autocut.measurement import Interval, Layout, best_of
from autocut.pipeline.stage_cache import StageCache
from autocut.price import OWN_PRICE, Price, fit, load_prices, price_for, usd_per_million
from autocut.recipe import UNTOUCHED
from autocut.stages import lowering
from autocut.study import Study

_UNTOUCHED_STAGE = ("compile", "/".join(UNTOUCHED.lowering))

_NO_UNTOUCHED = "there is no untouched model to compare with, so there are latencies, but no speed-ups"
# Seen with torch 2.13: a network of 0.19 ms takes 0.26 ms from its graph. At 2 ms a call, both take as long.
_EXPORTED = (
    "speed-ups here are over the untouched model as it was exported: a small model runs more slowly from its graph than from your "
    "code, so compare latencies with the claim, and speed-ups with one another"
)


@dataclass(frozen=True)
class Remeasured:
    """One bundle: its claim is `manifest`, `found` is what it gave now.

    `price` is that of this machine, None where none is known. `has_untouched` says whether the untouched model took turns with the
    bundle; if not, speed-ups of `found` say nothing. `notes` are what a reader must know, a sentence each.
    """

    folder: Path
    manifest: Manifest
    threads: int
    found: Rerun
    has_untouched: bool
    price: Price | None
    notes: tuple[str, ...]

    @property
    def failure(self) -> str | None:
        """Why this bundle cannot be used here; None where it can."""
        side = self.found.side
        if side is None or not side.answers_differ:
            return self.found.failure
        return (
            f"its outputs deviate by {side.output_deviation:.2g} of the largest output from the stored ones, "
            f"{side.output_tolerance:g} is allowed for {self.manifest.dtype}"
        )

    @property
    def served(self) -> Layout | None:
        """The layout in which this machine serves most, as measured; None where the bundle claims none, or none ran."""
        found = self.found.whole_machine
        return best_of(found.layouts) if found is not None and found.layouts else None

    @property
    def usd_per_million(self) -> Interval | None:
        """Dollars of a million predictions here at `price`, on the terms of the claim: of the whole machine, or of one process.

        The interval is that of the throughput, or of the latency.
        """
        return self._usd(self.price)

    @property
    def claimed_price(self) -> Price | None:
        """The price that the bundle's dollars have; None where it names none."""
        return None if self.manifest.economics is None else self.manifest.economics.bill.price

    @property
    def usd_at_claimed_price(self) -> Interval | None:
        """Dollars of a million predictions here at the price of the claim: what can stand beside the claim."""
        return self._usd(self.claimed_price)

    def _usd(self, price: Price | None) -> Interval | None:
        side = self.found.side
        if side is None or price is None or not side.latencies:
            return None
        busiest = max(side.latencies, key=lambda latency: latency.batch_size)
        if self.manifest.measurement.capacity is not None:
            if (served := self.served) is None:
                return None
            per_s: tuple[float, ...] = (served.per_s.value, served.per_s.high, served.per_s.low)
        else:
            per_s = tuple(busiest.batch_size / (ms / 1e3) for ms in (busiest.p50_ms.value, busiest.p50_ms.low, busiest.p50_ms.high))
        return Interval(*(usd_per_million(price.usd_per_hour, served_per_s, price.utilization) for served_per_s in per_s))


@dataclass(frozen=True)
class Conditions:
    """Under which conditions bundles are measured. `threads` None: as each bundle was. The price is the user's, if any is given."""

    threads: int | None = None
    instance: str | None = None
    price_per_hour: float | None = None
    alone: Turn = contextlib.nullcontext
    working: Turn = contextlib.nullcontext

    def __post_init__(self) -> None:
        """Refuse what cannot be, before anything is measured."""
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads must be at least 1, got {self.threads}", "--threads 1")
        if self.instance is not None or self.price_per_hour is not None:
            price_for(self.instance or "", self.price_per_hour)


def remeasure_bundle(folder: Path, conditions: Conditions, untouched: Path | None = None) -> Remeasured:
    """Measure the bundle in `folder`; with the artifact `untouched`, the untouched model takes turns with it.

    Raises:
        BundleError: `folder` is no readable bundle.
    """
    manifest = read_manifest(folder)
    threads = conditions.threads or manifest.measurement.cost.threads
    try:
        with conditions.working():
            check_files(folder, manifest)
        shapes = _shapes(manifest, threads)
        found = rerun(folder, threads, untouched=untouched, shapes=shapes, alone=conditions.alone, working=conditions.working)
    except VerificationError as error:
        found = Rerun(failure=error.message)
    price, price_note = _price(manifest, conditions)
    notes = [*_notes(manifest, threads), *([price_note] if price_note else [])]
    notes.append(_NO_UNTOUCHED if untouched is None else _EXPORTED)
    if found.whole_machine is not None and (reasons := found.whole_machine.left_out or found.whole_machine.failure):
        told = reasons if isinstance(reasons, str) else "; ".join(reasons)
        notes.append(f"layouts of the whole machine that were left out: {told}")
    return Remeasured(folder, manifest, threads, found, untouched is not None, price, tuple(notes))


def remeasure_study(study: Study, conditions: Conditions) -> Iterator[Remeasured]:
    """Measure every verified bundle of `study`, the one of the earliest trial first.

    Raises:
        NoResultError: the study has no verified bundle.
    """
    finals = [final for _, final in sorted(study.finals().items()) if final.verified and final.bundle is not None]
    if not finals:
        raise NoResultError(
            f"study {study.folder} must have a verified bundle, got none", f"autocut export {study.folder} --trial N --to FOLDER"
        )
    untouched = untouched_artifact(study)
    for final in finals:
        yield remeasure_bundle(study.folder / str(final.bundle), conditions, untouched)


def untouched_artifact(study: Study) -> Path | None:
    """Return the folder of the untouched model, exported, among the stages of `study`; None where it is gone."""
    if not study.stages_dir.is_dir():
        return None
    cache = StageCache(study.stages_dir)
    keys = [
        run.key
        for run in study.stage_runs()
        if (run.stage, run.method) == _UNTOUCHED_STAGE and run.fingerprint == UNTOUCHED.fingerprint and run.outcome == "done"
    ]
    entries = [entry for key in reversed(keys) if (entry := cache.find(key)) is not None]
    return entries[0].folder if entries else None


def _shapes(manifest: Manifest, threads: int) -> tuple[tuple[int, int], ...]:
    """Return the layouts that fill this machine; none where the bundle does not claim what a machine serves."""
    if manifest.measurement.capacity is None:
        return ()
    return shapes_for(processors_here(), None if lowering.takes_any_threads(manifest.mode, device_named(manifest)) else threads)


def _price(manifest: Manifest, conditions: Conditions) -> tuple[Price | None, str | None]:
    """Return the price of this machine, and why its dollars may not hold.

    It is what the user says, else the bundle's if that fits this machine, else that of the cheapest instance that fits it,
    else the bundle's all the same.
    """
    economics, host = manifest.economics, this_host()
    is_same_machine = manifest.measurement.cost.machine == machine_fingerprint()
    utilization = 1.0 if economics is None else economics.utilization
    if conditions.instance is not None or conditions.price_per_hour is not None:
        price = price_for(conditions.instance or "", conditions.price_per_hour, utilization)
        return price, fit(price, host)
    if economics is not None and fit(economics.bill.price, host) is None and (is_same_machine or economics.instance != OWN_PRICE):
        return economics.bill.price, None
    if fitting := load_prices().fitting(host):
        return price_for(fitting[0], None, utilization), None
    if economics is None:
        return None, "no price is known for this machine: --price-per-hour gives it"
    price = economics.bill.price
    return price, fit(price, host)


def compiled_note(manifest: Manifest, threads: int) -> str | None:
    """Say that a bundle's machine code was made for another machine or number of threads; None where it was made for these."""
    cost, machine = manifest.measurement.cost, machine_fingerprint()
    if not lowering.is_compiled_ahead(manifest.mode, device_named(manifest)) or (machine, threads) == (cost.machine, cost.threads):
        return None
    return (
        f"{manifest.mode} compiled the code of this bundle for {format_count(cost.threads, 'thread')} of {cost.machine}: "
        "a search here, with these threads, would compile it again"
    )


def _notes(manifest: Manifest, threads: int) -> list[str]:
    """Say what differs between the claim and now, besides the numbers."""
    notes = [note] if (note := compiled_note(manifest, threads)) else []
    return [*notes, *([told] if (told := versions_note(manifest)) else [])]
