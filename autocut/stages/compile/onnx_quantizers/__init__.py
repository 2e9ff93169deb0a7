"""ONNX Runtime's own quantizers: the int8 graphs of torch do not translate to its kernels.

A dtype is one file of this folder. It registers a function, under the name that the dtype has in `quantizers`, that reads the float
model from one file and writes the quantized one to another::

    @onnx_quantizers.register("int8_dynamic")
    def quantize_name(source: Path, target: Path, feeds: Sequence[Feed]) -> None: ...

`feeds` are batches of typical inputs as arrays by input name. The function may move `source` and write beside it. It calls
`require_quantized`, because a dtype that changes no layer is infeasible.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autocut.registry import MethodOptions, Registry, import_all

Feed = dict[str, NDArray[Any]]
OnnxQuantizer = Callable[[Path, Path, Sequence[Feed]], None]

onnx_quantizers: Registry[OnnxQuantizer, MethodOptions] = Registry("quantize.dtype in onnxruntime", MethodOptions)

import_all(sys.modules[__name__])
