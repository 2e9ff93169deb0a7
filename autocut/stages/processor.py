"""Features of the processor that decide a stage's result, and so belong to its key."""

from __future__ import annotations

import functools
import platform

import torch

_X86 = ("x86_64", "AMD64", "i686")


def sums_int8_in_32_bits() -> bool:
    """Whether the products of 8-bit numbers are summed without an overflow.

    On x86 that takes VNNI instructions, those of AVX512 or of AVX. Without them, ONNX Runtime and OpenVINO add two products in 16
    bits, which full-range numbers overflow: the sum of 255 x 127 and 255 x 127 becomes 32,767. Numbers of 7 bits fit. Other
    architectures have no such instruction.

    References:
        https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
        https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html
    """
    if platform.machine() not in _X86:
        return True
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_vnni") or capabilities.get("avx_vnni"))


def int8_range() -> str:
    """How many bits int8 quantizers use on this machine: ``8 bits``, or ``7 bits`` where 8 could overflow."""
    return "8 bits" if sums_int8_in_32_bits() else "7 bits"


@functools.cache
def instruction_sets() -> str:
    """Every instruction set that torch finds here. Code compiled for them fails, or gives other numbers, where one is missing."""
    found = {name for name, value in torch.cpu.get_capabilities().items() if value is True}
    return " ".join(sorted({f"{torch.backends.cpu.get_cpu_capability()} kernels", *found}))
