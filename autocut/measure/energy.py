"""Energy of a prediction: from a meter where the machine has one, otherwise an estimate that says so.

A meter counts the whole package or the whole GPU, idle parts and neighbours included. The estimate is a stated assumption times
the measured time, so it ranks models exactly as their throughput does: energy never breaks a tie.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autocut.measurement import Cost

POWERCAP = Path("/sys/class/powercap")

_WATTS_PER_THREAD = 5.0
_ESTIMATE = f"estimate (+-40%): {_WATTS_PER_THREAD:g} W for each busy thread, no meter"
"""Server CPUs of 2021 to 2024 have 4 to 5 W of thermal design power for each hardware thread. Estimates of this kind were up to
40% off meters (https://arxiv.org/abs/2509.22092)."""


@dataclass(frozen=True)
class Energy:
    """Joules of one prediction, and where the number comes from. The fields are named as in `Measurement`."""

    energy_j_per_prediction: float
    energy_source: str


@dataclass(frozen=True)
class Meter:
    """A counter of joules that may run over at `range_j` and begin again at 0."""

    source: str
    read_j: Callable[[], float]
    range_j: float | None = None

    def between(self, before_j: float, after_j: float) -> float:
        """Joules between two readings less than one run-over apart."""
        used = after_j - before_j
        return used + self.range_j if used < 0 and self.range_j is not None else used


def estimate_energy(cost: Cost) -> Energy:
    """Estimate from the measured throughput at the largest batch size, all threads of the model being busy."""
    latency = max(cost.latencies, key=lambda latency: latency.batch_size)
    joules = _WATTS_PER_THREAD * cost.threads * latency.p50_ms.value / 1e3 / latency.batch_size
    return Energy(joules, _ESTIMATE)


def measure_energy(
    run: Callable[[], object], predictions: int, cost: Cost, *, seconds: float = 2.0, meters: list[Meter] | None = None
) -> Energy:
    """Repeat `run` for some seconds and read the meters before and after; estimate from `cost` where there are none.

    Args:
        run: One call of the model.
        predictions: How many predictions a call makes.
        cost: What the model was measured to cost.
        seconds: How long to repeat; meters are coarse.
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
    """Return the meters that this process may read: RAPL packages of the CPU, and NVIDIA GPUs where pynvml is installed."""
    return [*_rapl_meters(powercap), *_nvml_meters()]


def _rapl_meters(powercap: Path) -> list[Meter]:
    meters = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue  # a part of a package, already counted in it
        try:
            name = (zone / "name").read_text().strip()
            range_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
            counter = zone / "energy_uj"
            counter.read_text()  # since 2020 readable by root alone on most machines
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
    return [Meter(f"NVML GPU {index}", partial(_read_nvml_j, handle)) for index, handle in enumerate(handles)]


def _read_rapl_j(counter: Path) -> float:
    return int(counter.read_text()) / 1e6


def _read_nvml_j(handle: Any) -> float:
    import pynvml

    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
