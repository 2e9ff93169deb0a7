"""The kind of this machine's processor, by which a price sheet knows it. Reads /proc, never torch."""

from __future__ import annotations

import re
from pathlib import Path

from autocut.measure.machine import describe_machine, gpu_count
from autocut.price import Host

_ARCHITECTURES = {"arm64": "aarch64", "AMD64": "x86_64"}
_CPUINFO = Path("/proc/cpuinfo")


def this_host() -> Host:
    """Describe this machine as far as a price depends on it."""
    machine, cpuinfo = describe_machine(), _read(_CPUINFO)
    name = _field(cpuinfo, "model name") or machine.cpu
    architecture = _ARCHITECTURES.get(machine.architecture, machine.architecture)
    return Host(name, processor_kind(cpuinfo), architecture, machine.cores, machine.gpu, gpu_count())


def processor_kind(cpuinfo: str) -> str:
    """Name the kind of the first processor in the text of /proc/cpuinfo; "" where the text does not tell it.

    On x86 it is vendor and family/model, such as ``GenuineIntel 6/143``: virtual machines hide the name, but not these. On Arm it
    is implementer/part, such as ``0x41/0xd40``.
    """
    vendor, family, model = (_field(cpuinfo, key) for key in ("vendor_id", "cpu family", "model"))
    if vendor and family and model:
        return f"{vendor} {family}/{model}"
    implementer, part = _field(cpuinfo, "CPU implementer"), _field(cpuinfo, "CPU part")
    return f"{implementer}/{part}" if implementer and part else ""


def _field(cpuinfo: str, key: str) -> str:
    found = re.search(rf"^{key}[ \t]*:[ \t]*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
