"""Verify a bundle: run it in a fresh process without the user's code, and compare what it gives and costs with what it claims."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from autocut.deploy.claims import LATENCY_TOLERANCE, Check, Findings, failed, judge
from autocut.deploy.fresh_process import FreshProcess
from autocut.deploy.manifest import Manifest, check_files, read_manifest
from autocut.errors import InputError, VerificationError

TIMEOUT_S = 600.0
"""Loading may compile; twice the slowest compilation in FACTS fits."""


@dataclass(frozen=True)
class Verification:
    """The checks of one bundle. `ok` when every claim holds."""

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
        return failed(self.checks)

    def require_ok(self) -> None:
        """Raise unless every claim holds.

        Raises:
            VerificationError: with what each failed check found.
        """
        if not self.ok:
            told = "; ".join(check.told for check in self.failed)
            raise VerificationError(
                f"bundle {self.folder} must give what it claims: {told}",
                "export it again from its study",
            )


def verify_bundle(
    folder: Path,
    *,
    examples: Path | None = None,
    in_fresh_process: bool = True,
    process: FreshProcess | None = None,
    latency_tolerance: float = LATENCY_TOLERANCE,
    timeout_s: float = TIMEOUT_S,
) -> Verification:
    """Verify the bundle in `folder`.

    Args:
        folder: The bundle.
        examples: An `.npz` by `write_examples` with the whole split of the claimed accuracy; without it accuracy is compared on the
            bundle's own examples only.
        in_fresh_process: False runs it in this process: faster, but memory and cold start are not measured and the user's code may
            be there.
        process: A fresh process that has verified nothing yet, and may have been started already; None starts one.
        latency_tolerance: How far the claimed latency interval is widened on either side, as a fraction.
        timeout_s: The fresh process is killed after this long, and the bundle fails.

    Raises:
        BundleError: `folder` is no readable bundle.
        VerificationError: a file is not the one that the manifest names. Claims that do not hold are told in the result instead.
    """
    if not 0 <= latency_tolerance < 1:
        raise InputError(
            f"latency tolerance must be at least 0 and below 1, got {latency_tolerance}", "0.25 allows 25% on either side"
        )
    folder = folder.absolute()
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    if in_fresh_process:
        started = FreshProcess(manifest.measurement.cost.threads) if process is None else contextlib.nullcontext(process)
        with started as fresh:
            findings = _find_with(fresh, folder, examples, latency_tolerance, timeout_s)
    else:
        from autocut.deploy.verify_process import find

        findings = find(folder, examples, latency_tolerance)
    hashes = Check(
        "hashes", f"{len(manifest.files)} files", "the same", True, f"all {len(manifest.files)} files are the ones of the manifest"
    )
    return Verification(folder, manifest, (hashes, *judge(manifest, findings, latency_tolerance=latency_tolerance)), findings)


def _find_with(process: FreshProcess, folder: Path, examples: Path | None, latency_tolerance: float, timeout_s: float) -> Findings:
    with tempfile.TemporaryDirectory(prefix="autocut-findings-") as scratch:
        report = Path(scratch) / "findings.json"
        question = {
            "bundle": str(folder),
            "report": str(report),
            "examples": None if examples is None else str(examples.absolute()),
            "latency_tolerance": latency_tolerance,
        }
        ended = process.ask(question, timeout_s)
        if report.exists():
            return TypeAdapter(Findings).validate_python(json.loads(report.read_text(encoding="utf-8")))
        return Findings(failure=ended or "it ended without a word")
