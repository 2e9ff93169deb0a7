"""Int8 weights and activations in ONNX Runtime, with scales from calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from autocut.stages import processor
from autocut.stages.compile.onnx_quantizers import Feed, onnx_quantizers
from autocut.stages.compile.onnx_quantizers.onnx_files import prepare, require_quantized


@onnx_quantizers.register("int8_static")
def quantize_static(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    """Int8 weights per channel and uint8 activations scaled by calibration data, as operator pairs that the runtime fuses."""
    from onnxruntime.quantization import QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    quantize(
        prepare(source), target, _Reader(feeds), quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=not processor.has_vnni(), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    require_quantized(target, "int8_static")


class _Reader:
    """Calibration data in the form that ONNX Runtime asks for: `get_next` gives a feed, and None at the end."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed."""
        return next(self._feeds, None)
