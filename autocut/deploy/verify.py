"""Verify a bundle: run it in a fresh process without the user's code, and compare what it gives and costs with what it claims."""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

import autocut
from autocut.deploy.claims import LATENCY_TOLERANCE, Check, Findings, failed, judge
from autocut.deploy.manifest import Manifest, check_files, read_manifest
from autocut.errors import InputError, VerificationError

TIMEOUT_S = 600.0
"""Loading may compile; twice the slowest compilation in FACTS fits."""

_KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CXX",
    "CC",
)


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
        findings = _find_in_fresh_process(folder, manifest, examples, latency_tolerance, timeout_s)
    else:
        from autocut.deploy.verify_process import find

        findings = find(folder, examples, latency_tolerance)
    hashes = Check(
        "hashes", f"{len(manifest.files)} files", "the same", True, f"all {len(manifest.files)} files are the ones of the manifest"
    )
    return Verification(folder, manifest, (hashes, *judge(manifest, findings, latency_tolerance=latency_tolerance)), findings)


def _find_in_fresh_process(
    folder: Path, manifest: Manifest, examples: Path | None, latency_tolerance: float, timeout_s: float
) -> Findings:
    with tempfile.TemporaryDirectory(prefix="autocut-verify-") as scratch:
        report = Path(scratch) / "findings.json"
        command = [
            sys.executable,
            "-P",
            "-m",
            "autocut.deploy.verify_process",
            str(folder),
            str(report),
            "--latency-tolerance",
            str(latency_tolerance),
            "--parent",
            str(os.getpid()),
        ]
        if examples is not None:
            command += ["--examples", str(examples.absolute())]
        # The working folder is empty and -P keeps it off sys.path: nothing of the user's can be imported by accident.
        # The compiler finds an empty cache, as at the first start on a server: what it takes there is the cold start.
        environment = clean_environment(manifest.measurement.cost.threads) | {"TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor"}
        ended = run_process(command, Path(scratch), environment, timeout_s)
        if report.exists():
            return TypeAdapter(Findings).validate_python(json.loads(report.read_text(encoding="utf-8")))
        return Findings(failure=ended)


def run_process(command: list[str], folder: Path, environment: dict[str, str], timeout_s: float) -> str:
    """Run `command` in `folder` and return how it ended, for a person.

    It leads a process group of its own, so that a timeout ends its compilers too.
    """
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout_s:g} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    last = next((line for line in reversed(errors.splitlines()) if line.strip()), "no message")
    if process.returncode < 0:
        return f"killed by {signal.Signals(-process.returncode).name}"
    return f"exit code {process.returncode}: {last.strip()}"


def clean_environment(threads: int = 1) -> dict[str, str]:
    """Environment of the fresh process: what a program needs to start, nothing that leads to the user's code.

    Thread pools get the claimed size from the start: threads that wait for one another on a busy machine cost a hundredfold.
    """
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    root = Path(autocut.__file__).resolve().parents[1]
    installed = {Path(path).resolve() for path in (*site.getsitepackages(), site.getusersitepackages())}
    if root not in installed:
        environment["PYTHONPATH"] = str(root)
    return environment | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": str(threads)}
