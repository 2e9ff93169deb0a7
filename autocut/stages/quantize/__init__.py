"""Quantize: store numbers in fewer bits.

A dtype is one file of this folder. It registers a function in `quantizers`, with what `DtypeOptions` asks for::

    def why_not_here() -> str | None:
        return None if processor.sums_int8_in_32_bits() else "int8 sums overflow on this CPU"

    @quantizers.register("int4", no_kernel={"eager": "eager has no int4 kernel"}, machine=why_not_here)
    def quantize_int4(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:
        "Store linear weights as int4."  # the line that `autocut methods` shows
        with quietly():
            from torchao.quantization import Int4WeightOnlyConfig

        return quantize_linear_layers(model, "int4", Int4WeightOnlyConfig())

The function does not change the trained model that it gets. It returns a new module, float in and float out, called as the model
is, that `torch.export` takes and that holds plain tensors only. `calibration` has batches of typical inputs; the first is the
export example. A calibration iterates over `stages.calibration.affordable(calibration, numbers)`: of a large model that is fewer
examples, and others may time between two batches. A dtype that changes no layer raises `InfeasibleRecipeError`. Raise `version`
when the numbers change.

A runtime may have quantizers of its own (`stages.compile.onnxruntime`). There a dtype has another function, under the same name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from autocut.recipe import without_kept
from autocut.registry import MethodOptions, Registry, import_all
from autocut.stages.device import Device


def _nothing() -> None:
    return None


def _always() -> bool:
    return True


def _no_kernel(device: Device) -> str:
    return f"autocut has no kernel of this dtype for {device.kind}"


def any_gpu(device: Device) -> None:
    """Every GPU runs the dtype."""


@dataclass(frozen=True, kw_only=True)
class DtypeOptions(MethodOptions):
    """What a dtype says of itself, besides the function that quantizes.

    Attributes:
        no_kernel: Compile modes that cannot run the dtype by a kernel of its own, with the reason.
        machine: Reason why this machine's processor cannot run the dtype, or None. It is cheap.
        gpu: Reason why the GPU that serves cannot run the dtype, or None. It is cheap. A file that says nothing has none.
        context: What of the machine decides the quantized numbers. It is asked even where the dtype cannot run.
        freezing: False where constant folding in a compiler would turn the stored numbers back into floats.
        convolutions: Whether the dtype changes convolutions, not only linear layers.
        output_tolerance: Largest deviation of an output from what the same bundle gave before, relative to the largest output
            (`deploy.claims`).
        keeps_float: Whether the function takes `keep_float`: so many layers, those whose quantization deviates the output the most,
            stay float (`stages.sensitivity`).
        speedup: First guess of the speed-up over fp32 in the same mode, for a dtype that `search.first_guesses` does not know. It
            orders what a search tries before it has measured. None: no guess.
        accelerated: Whether this machine's processor has instructions for the products of the dtype. Without them, the dtype is
            guessed to be no faster than fp32 in the same mode.
        seconds_per_100mb: Seconds of one core for each 100 MB of float32 weights; None: not known. It orders what a search tries.
    """

    no_kernel: Mapping[str, str] = field(default_factory=dict)
    machine: Callable[[], str | None] = _nothing
    gpu: Callable[[Device], str | None] = _no_kernel
    context: Callable[[], str | None] = _nothing
    freezing: bool = True
    convolutions: bool = False
    output_tolerance: float = 5e-2
    keeps_float: bool = False
    speedup: float | None = None
    seconds_per_100mb: float | None = None
    accelerated: Callable[[], bool] = _always


Quantizer = Callable[..., nn.Module]
"""(model, calibration) -> the quantized model; with `keep_float=k` where the dtype `keeps_float`."""

quantizers: Registry[Quantizer, DtypeOptions] = Registry("quantize.dtype", DtypeOptions)


def output_tolerance(dtype: str) -> float:
    """Largest deviation of an output of a bundle of `dtype`; a dtype that is not registered here gets that of integers.

    A lowering's spelling of the dtype is understood too.
    """
    dtype, _ = without_kept(dtype)
    return (quantizers.method(dtype).options if dtype in quantizers else DtypeOptions()).output_tolerance


import_all(sys.modules[__name__])
