"""The machine that made a measurement. Reads /proc and `platform`, never torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autocut.counting import format_count

_COMPUTE_FLAGS = re.compile(r"sse|avx|amx|fma|f16c|asimd|sve|sme(?!p)|bf16|i8mm|dotprod|fphp")
"""Instruction sets that decide which kernels run. Other flags change with the kernel's version and do not matter for speed."""


@dataclass(frozen=True)
class Machine:
    """One machine. `governor` is the CPU frequency governor and `gpu` the first NVIDIA GPU; None means that none was found."""

    cpu: str
    architecture: str
    cores: int
    instructions: str
    memory_bytes: int
    gpu: str | None
    governor: str | None
    os: str
    python: str
    torch: str | None


def describe_machine() -> Machine:
    """Describe this machine and the versions that affect its numbers most."""
    cpuinfo = _read(Path("/proc/cpuinfo"))
    return Machine(
        cpu=_cpu_model(cpuinfo),
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        instructions=" ".join(_compute_flags(cpuinfo)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=_gpu_model(),
        governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")).strip() or None,
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=_version("torch"),
    )


@cache
def machine_fingerprint() -> str:
    """Name and short hash; two machines with the same fingerprint have comparable latencies.

    The hash covers what decides speed: CPU model, cores, instruction sets, GPU. It leaves out versions, because results name them
    separately, and the host name, because the nodes of one cluster are alike.
    """
    machine = describe_machine()
    hardware = (machine.cpu, machine.architecture, str(machine.cores), machine.instructions, machine.gpu or "")
    digest = hashlib.sha256("\0".join(hardware).encode()).hexdigest()[:8]
    words = " ".join(re.sub(r"\((R|TM|C)\)|\b(CPU|Processor)\b|@.*", " ", machine.cpu, flags=re.IGNORECASE).split())
    parts = [words or machine.architecture, format_count(machine.cores, "core"), *([machine.gpu] if machine.gpu else [])]
    return f"{', '.join(parts)} ({digest})"


def _cpu_model(cpuinfo: str) -> str:
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if found is None:
        return platform.processor() or platform.machine()
    name = found[1].strip()
    # Virtual machines hide the name ("Intel(R) Xeon(R) Processor"). Family and model number identify the generation.
    numbers = [re.search(rf"^{key}\s*:\s*(\d+)$", cpuinfo, re.MULTILINE) for key in ("cpu family", "model", "stepping")]
    return name + (" " + "/".join(number[1] for number in numbers if number) if all(numbers) else "")


def _compute_flags(cpuinfo: str) -> list[str]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return sorted({flag for flag in found[1].split() if _COMPUTE_FLAGS.search(flag)}) if found else []


def _gpu_model() -> str | None:
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        if found := re.search(r"^Model:\s*(.+)$", _read(information), re.MULTILINE):
            return found[1].strip()
    return None


def gpu_count() -> int:
    """Return how many NVIDIA GPUs the driver shows here."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*/information")))


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
