"""Verify a bundle: run it in a fresh process without the user's code, and compare its outputs and cost with its claims."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from autocut.counting import format_count
from autocut.deploy.claims import LATENCY_TOLERANCE, Check, Findings, judge
from autocut.deploy.fresh_process import FreshProcess, Turn
from autocut.deploy.layouts import find_capacity
from autocut.deploy.manifest import Manifest, check_files, read_manifest
from autocut.deploy.versions import versions_note
from autocut.errors import InputError, VerificationError

TIMEOUT_S = 600.0
"""Loading may compile. The limit is twice the slowest compilation in FACTS."""


@dataclass(frozen=True)
class Verification:
    """The checks of one bundle."""

    folder: Path
    manifest: Manifest
    checks: tuple[Check, ...]
    findings: Findings

    @property
    def ok(self) -> bool:
        """Whether every claim holds."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that refuse the bundle."""
        return tuple(check for check in self.checks if not check.ok)

    def require_ok(self) -> None:
        """Raise unless every claim holds.

        Raises:
            VerificationError: with the message of each failed check.
        """
        if not self.ok:
            messages = "; ".join(check.message for check in self.failed)
            raise VerificationError(f"bundle {self.folder} must give what it claims: {messages}", "export it again from its study")


def verify_bundle(
    folder: Path,
    *,
    examples: Path | None = None,
    in_fresh_process: bool = True,
    process: FreshProcess | None = None,
    latency_tolerance: float = LATENCY_TOLERANCE,
    timeout_s: float = TIMEOUT_S,
    checks_capacity: bool = True,
    alone: Turn = contextlib.nullcontext,
    working: Turn = contextlib.nullcontext,
) -> Verification:
    """Verify the bundle in `folder`.

    Args:
        folder: The bundle.
        examples: An `.npz` by `write_examples` with the whole split of the claimed accuracy, or with the first examples of it that
            the manifest counts. None compares accuracy on the bundle's own examples only.
        in_fresh_process: False runs the bundle in this process. That is faster, but it measures neither memory nor cold start, and
            the user's code may be loaded.
        process: A fresh process that has verified nothing yet; it may have been started. None starts one.
        latency_tolerance: Fraction by which the claimed latency may be exceeded.
        timeout_s: Seconds after which the fresh process is killed and the bundle fails.
        checks_capacity: Whether the best layout runs again, if there is a fresh process and this is the machine of the claim.
        alone: Entered while the fresh process measures.
        working: Entered for all other work.

    Raises:
        BundleError: `folder` is no readable bundle.
        VerificationError: a file differs from the one that the manifest names. A false claim raises nothing; the result reports it.
    """
    if not 0 <= latency_tolerance < 1:
        raise InputError(
            f"latency tolerance must be at least 0 and below 1, got {latency_tolerance}", "0.25 allows 25% more than was claimed"
        )
    folder = folder.absolute()
    manifest = read_manifest(folder)
    with working():
        check_files(folder, manifest)
    if in_fresh_process:
        started = FreshProcess(manifest.measurement.cost.threads) if process is None else contextlib.nullcontext(process)
        with started as fresh:
            capacity = (
                find_capacity(fresh, folder, manifest, latency_tolerance, alone=alone, working=working) if checks_capacity else None
            )
            ask = partial(fresh.ask, timeout_s=timeout_s, alone=alone, working=working)
            findings = replace(_find_in(ask, folder, examples, latency_tolerance), capacity=capacity)
    else:
        from autocut.deploy.verify_process import find

        findings = find(folder, examples, latency_tolerance)
    files = format_count(len(manifest.files), "file")
    hashes = Check("hashes", files, "the same", True, f"all {files} are the ones of the manifest")
    judged = judge(manifest, findings, latency_tolerance=latency_tolerance)
    return Verification(folder, manifest, (hashes, *judged, *_versions(manifest)), findings)


def _versions(manifest: Manifest) -> list[Check]:
    """Report which libraries have another version here. By itself that is no failure; where a claim fails, it may be the reason."""
    note = versions_note(manifest)
    return [] if note is None else [Check("versions", "the same", "others", True, f"{note} (reported, not judged)")]


def _find_in(
    ask: Callable[[Mapping[str, object]], str | None], folder: Path, examples: Path | None, latency_tolerance: float
) -> Findings:
    with tempfile.TemporaryDirectory(prefix="autocut-findings-") as scratch:
        report = Path(scratch) / "findings.json"
        question = {
            "bundle": str(folder),
            "report": str(report),
            "examples": None if examples is None else str(examples.absolute()),
            "latency_tolerance": latency_tolerance,
        }
        ended = ask(question)
        if report.exists():
            return TypeAdapter(Findings).validate_python(json.loads(report.read_text(encoding="utf-8")))
        return Findings(failure=ended or "it ended without a report")
