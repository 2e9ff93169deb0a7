"""Static int8 for OpenVINO, by nncf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autocut.stages.compile.openvino import FLOAT, Arrays, Model, load_nncf, openvino_quantizers
from autocut.stages.compile.openvino_comparison import OpenVinoComparison, weighted_layers
from autocut.stages.sensitivity import keep_sensitive

_ATTENTION = ("Softmax", "ScaledDotProductAttention")


@openvino_quantizers.register(
    "int8_static", version=2, keeps_float=True, properties=FLOAT, capability="INT8", seconds_per_100mb=18.0
)
def quantize_static(model: Model, feeds: Sequence[Arrays], keep_float: int = 0) -> Model:
    """Int8 weights and activations scaled by calibration data; attention gets nncf's scheme for transformers.

    `keep_float` layers stay float, as in ONNX Runtime's `int8_static`.

    References:
        https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
    """
    comparison = OpenVinoComparison(model, feeds, FLOAT)
    layers = tuple(weighted_layers(model))

    def make(kept: Sequence[str], only: Sequence[str]) -> Model:
        ignored = [layer for layer in layers if layer not in only] if only else kept
        return _quantized(model, comparison.feeds if only else feeds, ignored)

    return keep_sensitive(comparison.attempt(make([], [])), layers, make, comparison, keep_float)


def _quantized(model: Model, feeds: Sequence[Arrays], ignored: Sequence[str]) -> Any:
    has_attention = any(node.get_type_name() in _ATTENTION for node in model.get_ops())
    with load_nncf() as nncf:
        return nncf.quantize(
            model.clone(), nncf.Dataset(feeds), preset=nncf.QuantizationPreset.MIXED, subset_size=len(feeds),
            model_type=nncf.ModelType.TRANSFORMER if has_attention else None, ignored_scope=nncf.IgnoredScope(names=list(ignored)),
        )  # fmt: skip
