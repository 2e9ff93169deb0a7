"""Static int8 for OpenVINO, by nncf: which preset, and which layers stay float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autocut.stages import processor
from autocut.stages.calibration import affordable
from autocut.stages.compile.openvino import FLOAT, Arrays, Model, load_nncf, openvino_quantizers
from autocut.stages.compile.openvino_comparison import OpenVinoComparison, numbers_of_model, weighted_layers
from autocut.stages.sensitivity import TOLERATED, by_sensitivity, too_large

_ATTENTION = ("Softmax", "ScaledDotProductAttention")
_SHAPES = ("Reshape", "Squeeze", "Transpose", "Unsqueeze")
_SYMMETRIC, _ASYMMETRIC = "PERFORMANCE", "MIXED"
"""nncf's presets: activations without an offset, which is faster (5% to 9% in ResNet-50), or with one. ResNet-20 has 91.1% and
90.9% of 3,000 images right, a MobileNetV3 with hard-swish 73.3% and 73.4% of 1,001: paired tests tell neither apart."""


@openvino_quantizers.register(
    "int8_static", version=4, keeps_float=True, properties=FLOAT, capability="INT8", seconds_per_100mb=18.0
)
def quantize_static(model: Model, feeds: Sequence[Arrays], keep_float: int = 0) -> Model:
    """Int8 weights and activations scaled by calibration data; attention gets nncf's scheme for transformers.

    Activations have no offset, unless there is attention, or the outputs would deviate too much. `keep_float` layers stay float:
    those whose activations alone, when rounded, make the outputs deviate the most. Without it none does, other than in ONNX
    Runtime's `int8_static`: nncf takes seconds for each attempt, and stories260K loses 1% where the deviation is above a tenth.

    References:
        https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
    """
    comparison, layers = OpenVinoComparison(model, feeds, FLOAT), tuple(weighted_layers(model))
    if keep_float and not comparison.allows_scan(len(layers)):
        raise too_large(len(layers))  # before nncf has calibrated a large model for half a minute
    has_attention = any(node.get_type_name() in _ATTENTION for node in model.get_ops())
    used = affordable(feeds, numbers_of_model(model, feeds[0]))
    tried = []
    for preset in (_ASYMMETRIC,) if has_attention else (_SYMMETRIC, _ASYMMETRIC):
        tried.append((comparison.attempt(_quantized(model, used, preset, [])), preset))
        if tried[-1][0].deviation <= TOLERATED:
            break
    found, preset = min(tried, key=lambda one: one[0].deviation)
    if not keep_float:
        return found.model
    ranked = by_sensitivity(layers, lambda _, only: _alone(found.model, only), comparison)
    return _quantized(model, used, preset, ranked[:keep_float])


def _quantized(model: Model, feeds: Sequence[Arrays], preset: str, kept: Sequence[str]) -> Model:
    has_attention = any(node.get_type_name() in _ATTENTION for node in model.get_ops())
    with load_nncf() as nncf:
        return nncf.quantize(
            model.clone(), nncf.Dataset(feeds), preset=nncf.QuantizationPreset[preset], subset_size=len(feeds),
            model_type=nncf.ModelType.TRANSFORMER if has_attention else None, ignored_scope=nncf.IgnoredScope(names=list(kept)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=_overflow_fix(nncf)),
        )  # fmt: skip


def _overflow_fix(nncf: Any) -> Any:
    """Keep weights to 7 bits where the processor sums products in 16 bits: nncf (3.4) by itself does so in the first layer alone.

    References:
        https://docs.openvino.ai/2023.3/pot_saturation_issue.html
    """
    return nncf.OverflowFix.FIRST_LAYER if processor.sums_int8_in_32_bits() else nncf.OverflowFix.ENABLE


def _alone(quantized: Model, layers: Sequence[str]) -> Any:
    """Let `layers` alone read rounded activations. To quantize anew would take nncf seconds a layer."""
    model = quantized.clone()
    known = weighted_layers(model)
    wanted = {_rounding_before(known[layer]) for layer in layers}
    for node in model.get_ops():
        is_rounding = node.get_type_name() == "FakeQuantize" and node.input_value(0).get_node().get_type_name() != "Constant"
        if is_rounding and node.get_friendly_name() not in wanted:
            node.output(0).replace(node.input_value(0))
    return model


def _rounding_before(layer: Any) -> str:
    """Name of what `layer` reads, before it got another shape."""
    node = layer.input_value(0).get_node()
    while node.get_type_name() in _SHAPES:
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())
