"""Features of the processor that decide a stage's result, and so belong to its key."""

from __future__ import annotations

import functools

import torch


def has_vnni() -> bool:
    """Whether int8 products are summed in 32 bits. Without VNNI the 16-bit sums overflow, so numbers must be kept to 7 bits."""
    return bool(torch.cpu._is_vnni_supported())


def int8_range() -> str:
    """How many bits int8 quantizers use on this machine: ``8 bits`` with VNNI, else ``7 bits``."""
    return "8 bits" if has_vnni() else "7 bits"


@functools.cache
def instruction_sets() -> str:
    """Every instruction set that torch finds here. Code compiled for them fails, or gives other numbers, where one is missing."""
    found = {f"{torch.backends.cpu.get_cpu_capability()} kernels"}
    # torch 2.13 has `get_capabilities`; where it is missing there are only the private tests (torch>=2.11 is allowed).
    if capabilities := getattr(torch.cpu, "get_capabilities", None):
        found |= {name for name, value in capabilities().items() if value is True}
    else:
        tests = [name for name in dir(torch.cpu) if name.startswith("_is_") and name.endswith("_supported")]
        found |= {name.removeprefix("_is_").removesuffix("_supported") for name in tests if getattr(torch.cpu, name)()}
    return " ".join(sorted(found))
