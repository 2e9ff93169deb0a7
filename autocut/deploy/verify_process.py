"""The fresh process of `autocut verify`: load a bundle, run it, measure it, and write a report.

    python -P -m autocut.deploy.verify_process --parent PID --ready DESCRIPTOR --measured DESCRIPTOR

`answering` describes the descriptors. The question has `bundle`, `report`, `examples` and `latency_tolerance`; the report is JSON,
one `Findings`. This process does not compare claims, except that it measures a latency a second time if the first is outside its
claim.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import autocut
from autocut.deploy.answering import HandBack, answer
from autocut.deploy.bundle import Deployed, load
from autocut.deploy.claims import Findings, FoundLatency, latency_agrees
from autocut.deploy.devices import device_of
from autocut.deploy.examples import ExampleBatch, number_of_examples, read_examples
from autocut.deploy.manifest import EXAMPLES, MODEL_FOLDER, read_manifest
from autocut.deploy.replay import replay, timing_inputs
from autocut.errors import AutocutError
from autocut.measure.footprint import forget_peak, peak_resident_bytes, resident_bytes, size_bytes
from autocut.measure.latency import measure_latency
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Latency
from autocut.registry import plug_in_packages
from autocut.stages.quantize import output_tolerance
from autocut.task.batches import Inputs, take

_SAMPLES = 64
_ATTEMPTS = 2
_PARTS = 3
"""A latency is known well enough for its verdict when its interval is as wide as the tolerance divided by this."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer one question."""

    def respond(question: Mapping[str, Any], hand_back: HandBack) -> Findings:
        examples = Path(question["examples"]) if question["examples"] else None
        return find(Path(question["bundle"]), examples, question["latency_tolerance"], alone=True, hand_back=hand_back)

    answer(respond, arguments)


def find(
    folder: Path,
    examples: Path | None,
    latency_tolerance: float,
    *,
    alone: bool = False,
    hand_back: HandBack = lambda: None,
) -> Findings:
    """Load and run the bundle in this process.

    `alone` means that the process is fresh: its memory, cold start and modules are then those of the bundle. `hand_back` is called
    when nothing more is measured. If autocut refuses the bundle, the reason is the finding. An error of the runtime ends the
    process; its parent reports that.
    """
    try:
        return _find(folder, examples, latency_tolerance, alone=alone, hand_back=hand_back)
    except AutocutError as error:
        return Findings(failure=error.message)


def _find(folder: Path, examples: Path | None, latency_tolerance: float, *, alone: bool, hand_back: HandBack) -> Findings:
    stored = read_examples(folder / EXAMPLES)
    threads = read_manifest(folder).measurement.cost.threads
    if alone:
        torch.set_num_threads(threads)
    forget_peak()
    before_bytes = resident_bytes()
    started = time.perf_counter()
    device = device_of(read_manifest(folder))
    before_there = device.used_bytes()
    deployed = load(folder, threads)
    deployed.predict(take(stored[0].inputs, 1))
    cold_start_ms = (time.perf_counter() - started) * 1e3
    # A GPU's memory is what there is too little of there. torch gives none of it back by itself, so what is in use is the peak.
    peak_bytes = max(peak_resident_bytes() - before_bytes if device.is_cpu else device.used_bytes() - before_there, 0)
    findings = Findings(machine=machine_fingerprint())
    if alone:
        findings = replace(findings, cold_start_ms=cold_start_ms, peak_memory_bytes=peak_bytes)
    findings = replace(findings, latencies=_find_latencies(deployed, stored, latency_tolerance, findings.machine))
    hand_back()
    findings = _find_outputs(deployed, stored, None if examples is None else read_examples(examples), findings)
    return replace(findings, size_bytes=size_bytes(folder / MODEL_FOLDER), foreign_modules=foreign_modules() if alone else ())


def foreign_modules() -> tuple[str, ...]:
    """Names of loaded modules that come from neither Python, nor installed packages, autocut or plug-ins: the user's code.

    Inductor may generate modules while a bundle loads. They lie in its cache folder and do not count.
    """
    python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    packages = [*site.getsitepackages(), site.getusersitepackages(), str(Path(autocut.__file__).parent)]
    allowed = {str(Path(home).resolve()) + os.sep for home in (*python, *packages, *_compiler_caches())}
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in plug_in_packages():
            continue  # it may be installed as a link to its sources
        # `torch.ops` names a relative path of a file that does not exist.
        if isinstance(file, str) and Path(file).is_absolute() and not _is_below(file, allowed):
            found.append(name)
    return tuple(sorted(found))


def _is_below(file: str, folders: set[str]) -> bool:
    return any(file.startswith(folder) for folder in folders) or str(Path(file).resolve()).startswith(tuple(folders))


def _find_outputs(
    deployed: Deployed, stored: Sequence[ExampleBatch], test: Sequence[ExampleBatch] | None, findings: Findings
) -> Findings:
    claim = deployed.manifest.verification
    own = replay(deployed, stored, None if claim.synthetic else claim.kind)
    findings = replace(
        findings,
        output_deviation=own.deviation,
        output_tolerance=output_tolerance(deployed.manifest.dtype),
        examples_accuracy=own.metric,
    )
    if test is None:
        return findings
    tested = replay(deployed, test, claim.kind)
    return replace(
        findings,
        output_deviation=max(own.deviation, tested.deviation),
        test_accuracy=tested.metric,
        test_examples=number_of_examples(test),
    )


def _find_latencies(deployed: Deployed, stored: Sequence[ExampleBatch], tolerance: float, machine: str) -> tuple[FoundLatency, ...]:
    cost = deployed.manifest.measurement.cost
    if machine != cost.machine:
        return ()
    return tuple(
        _find_latency(
            deployed, deployed.device.move_inputs(timing_inputs(deployed.manifest, stored, claim.batch_size)), claim, tolerance
        )
        for claim in cost.latencies
    )


def _find_latency(deployed: Deployed, inputs: Inputs, claim: Latency, tolerance: float) -> FoundLatency:
    for attempt in range(1, _ATTEMPTS + 1):
        # The untouched model is not in the bundle, so the model is timed without it.
        timed = measure_latency(deployed.predict, None, inputs, samples=_SAMPLES, narrow=tolerance / _PARTS)
        found = FoundLatency(claim.batch_size, timed.p50_ms, timed.yardstick_ms, attempt)
        if latency_agrees(claim, found.p50_ms, found.reference_ms, tolerance):
            break
    return found


def _compiler_caches() -> list[str]:
    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    # Triton's own: what launches the kernels of a GPU.
    triton = os.environ.get("TRITON_CACHE_DIR") or str(Path.home() / ".triton")
    return [triton, *([named] if named else map(str, Path(tempfile.gettempdir()).glob("torchinductor_*")))]


if __name__ == "__main__":
    main()
