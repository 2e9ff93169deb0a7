"""Quantize: store numbers in fewer bits.

A method is one function in one file of this folder, registered in `quantizers`::

    @quantizers.register("name", eager="why eager has no kernel for it", machine=check)
    def quantize_name(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module: ...

It returns a new module, float in and float out, called as the model is, that `torch.export` takes and that holds plain tensors
only. A dtype that changes no layer raises `InfeasibleRecipeError`. Options, all of them optional:

    eager       why an uncompiled graph of this dtype is not a product, such as "no kernel"; the pair with eager is then infeasible
    machine     () -> reason why this machine cannot run the dtype, or None; cheap
    context     () -> what of the machine decides the quantized numbers, as a string; asked even where the dtype cannot run
    freezing    False where constant folding in a compiler would turn the stored numbers back into floats

Onnx Runtime brings quantizers of its own (stages/compile/onnxruntime.py): there only the names are shared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from torch import nn

from autocut.registry import Registry, import_all
from autocut.task.batches import Inputs

Quantizer = Callable[[nn.Module, Sequence[Inputs]], nn.Module]

quantizers: Registry[Quantizer] = Registry("quantize.dtype")

import_all(sys.modules[__name__])
