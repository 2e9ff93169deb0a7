"""What a call costs that gets fresh memory from the kernel: ResNet-50 as it is, with memory given back and with memory kept.

    python studies/timing/memory.py                  # about three minutes

Each fresh process calls the model a few times. Processes of both kinds take turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

_MODELS = Path(__file__).parents[1] / "large_models"


def main() -> None:
    """Print seconds, page faults and system time of a call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=6, help="processes of each kind")
    parser.add_argument("--calls", type=int, default=5, help="calls of each that count")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--as", dest="kind", choices=("given_back", "kept"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.kind:
        _call(asked.kind == "kept", asked.calls, asked.batch)
        return
    found: dict[str, list[tuple[float, ...]]] = {"given_back": [], "kept": []}
    print(f"{'memory':<12} {'s a call':>9} {'slowest/fastest':>16} {'faults':>9} {'system s':>9}")
    for _ in range(asked.processes):
        for kind, rows in found.items():
            command = [sys.executable, __file__, "--as", kind, "--calls", str(asked.calls), "--batch", str(asked.batch)]
            ran = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            rows.append(tuple(float(number) for number in ran.stdout.split()))
            seconds, spread, faults, system_s = rows[-1]
            print(f"{kind:<12} {seconds:9.3f} {spread:16.2f} {faults:9.0f} {system_s:9.3f}", flush=True)
    medians = {kind: [row[0] for row in rows] for kind, rows in found.items()}
    for kind, values in medians.items():
        print(
            f"{kind}: median {statistics.median(values):.3f} s a call, of {min(values):.3f} to {max(values):.3f} between processes"
        )
    print(f"given back / kept: {statistics.median(medians['given_back']) / statistics.median(medians['kept']):.2f}x")


def _call(keeps: bool, calls: int, batch: int) -> None:
    """Print median seconds, slowest by fastest, page faults and system seconds of a call."""
    import torch

    from autocut.measure.allocator import keep_memory

    sys.path.insert(0, str(_MODELS))
    import resnet50

    torch.set_num_threads(1)
    if keeps:
        keep_memory()
    model, images = resnet50.model().eval(), torch.randn(batch, 3, 160, 160)
    seconds = []
    with torch.inference_mode():
        for _ in range(2):
            model(images)
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(calls):
            began = time.perf_counter()
            model(images)
            seconds.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_SELF)
    faults = (after.ru_minflt - before.ru_minflt) / calls
    print(statistics.median(seconds), max(seconds) / min(seconds), faults, (after.ru_stime - before.ru_stime) / calls)


if __name__ == "__main__":
    main()
