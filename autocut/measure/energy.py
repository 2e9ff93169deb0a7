"""Energy of a prediction: read from a meter where the machine has one, otherwise estimated and labelled so.

A meter counts the whole package or the whole GPU, idle parts and other programs included. An estimate is an assumed power times
the measured time. It ranks models exactly as their throughput does, so energy never breaks a tie.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autocut.measurement import Cost

POWERCAP = Path("/sys/class/powercap")

_GPU = "NVML GPU"
_WATTS_PER_THREAD = 5.0
_ESTIMATE = f"estimate (+-40%): {_WATTS_PER_THREAD:g} W for each busy thread, no meter"
"""Server CPUs of 2021 to 2024 have 4 to 5 W of thermal design power for each hardware thread. Such estimates differed from meters
by up to 40% (https://arxiv.org/abs/2509.22092)."""


@dataclass(frozen=True)
class Energy:
    """Joules of one prediction, and the source of the number. `Measurement` has fields of the same names."""

    energy_j_per_prediction: float
    energy_source: str


@dataclass(frozen=True)
class Meter:
    """A counter of joules. It may overflow at `range_j` and begin again at 0."""

    source: str
    read_j: Callable[[], float]
    range_j: float | None = None

    def between(self, before_j: float, after_j: float) -> float:
        """Joules between two readings, with at most one overflow between them."""
        used = after_j - before_j
        return used + self.range_j if used < 0 and self.range_j is not None else used


def estimate_energy(cost: Cost) -> Energy:
    """Estimate from the measured throughput at the largest batch size, with all threads of the model busy."""
    latency = max(cost.latencies, key=lambda latency: latency.batch_size)
    joules = _WATTS_PER_THREAD * cost.threads * latency.p50_ms.value / 1e3 / latency.batch_size
    return Energy(joules, _ESTIMATE)


def measure_energy(
    run: Callable[[], object], predictions: int, cost: Cost, *, seconds: float = 2.0, meters: list[Meter] | None = None
) -> Energy:
    """Read the meters before and after some seconds of `run`; without a meter, estimate from `cost`.

    Args:
        run: One call of the model.
        predictions: Number of predictions in one call.
        cost: Measured cost of the model.
        seconds: How long to repeat the call, because meters are coarse.
        meters: Default: `find_meters()`.
    """
    found = find_meters() if meters is None else meters
    if not found:
        return estimate_energy(cost)
    before = [meter.read_j() for meter in found]
    calls, until = 0, time.monotonic() + seconds
    while calls == 0 or time.monotonic() < until:
        run()
        calls += 1
    used = sum(meter.between(reading, meter.read_j()) for meter, reading in zip(found, before, strict=True))
    return Energy(used / (calls * predictions), "measured: " + ", ".join(meter.source for meter in found))


def find_meters(powercap: Path = POWERCAP) -> list[Meter]:
    """Return the meters that this process may read: RAPL packages of the CPU, and NVIDIA GPUs if pynvml is installed."""
    return [*_rapl_meters(powercap), *_nvml_meters()]


def counts_gpu(meters: Iterable[Meter]) -> bool:
    """Whether one of `meters` counts what a GPU draws."""
    return any(meter.source.startswith(_GPU) for meter in meters)


def _rapl_meters(powercap: Path) -> list[Meter]:
    meters = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue  # a part of a package, which counts it already
        try:
            name = (zone / "name").read_text().strip()
            range_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
            counter = zone / "energy_uj"
            counter.read_text()  # since 2020 only root may read it on most machines
        except (OSError, ValueError):
            continue
        meters.append(Meter(f"RAPL {name}", partial(_read_rapl_j, counter), range_j))
    return meters


def _nvml_meters() -> list[Meter]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handles: list[Any] = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return []  # no driver, or a GPU older than Volta, which does not count
    return [Meter(f"{_GPU} {index}", partial(_read_nvml_j, handle)) for index, handle in enumerate(handles)]


def _read_rapl_j(counter: Path) -> float:
    return int(counter.read_text()) / 1e6


def _read_nvml_j(handle: Any) -> float:
    import pynvml

    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
