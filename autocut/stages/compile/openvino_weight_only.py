"""Weights in integers for OpenVINO, by nncf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocut.errors import InfeasibleRecipeError
from autocut.stages.compile.openvino import FLOAT, Arrays, Model, load_nncf, openvino_quantizers
from autocut.stages.compile.openvino_comparison import OpenVinoComparison, inputs_of_products, source, weighted_layers
from autocut.stages.compile.openvino_overflow import replace_constant
from autocut.stages.quantize.grouped import round_in_groups
from autocut.stages.quantize.moments import moments_by_name
from autocut.stages.sensitivity import TOLERATED

_DYNAMIC = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_WEIGHTS_ALONE: Mapping[str, str | int] = {**FLOAT, _DYNAMIC: 0}
_GROUP = 32
_SHARE_OF_INT4 = 0.8
_MIDDLE, _HIGHEST = 8, 7
_SMALLEST_SCALE = 2.0**-24
"""The smallest number of float16."""


@openvino_quantizers.register("int8_dynamic", properties={**FLOAT, _DYNAMIC: 32}, capability="INT8", seconds_per_100mb=1.8)
def quantize_dynamic(model: Model, feeds: Sequence[Arrays]) -> Model:
    """Int8 weights per output channel; activations are quantized while running, in groups of 32."""
    return quantize_weights(model, feeds)


@openvino_quantizers.register("int8_weight_only", properties=_WEIGHTS_ALONE, seconds_per_100mb=1.8)
def quantize_weights(model: Model, feeds: Sequence[Arrays]) -> Model:  # noqa: ARG001
    """Int8 weights per output channel; activations stay float32."""
    with load_nncf() as nncf:
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)


@openvino_quantizers.register("int4_weight_only", version=2, properties=_WEIGHTS_ALONE)
def pack_weights(model: Model, feeds: Sequence[Arrays]) -> Model:
    """Int4 weights of matrix products, two in a byte, 32 in a group; those of embeddings and of the last layer are int8.

    Weights make up for one another's rounding (`round_in_groups`). Where the outputs deviate too much even so, a fifth of the
    weights is int8. So are layers whose rows are no multiple of 32. A model that has no other layer gets its last one in int4, with
    a row in a group.
    """
    comparison = OpenVinoComparison(model, feeds, _WEIGHTS_ALONE)
    moments: Mapping[str, Tensor] = {}
    found = None
    for choose in (_every_layer, _most_layers, _last_layer):
        if found is not None and (found.deviation <= TOLERATED or choose is _last_layer):
            break
        packed = choose(model.clone(), comparison.feeds)
        if any(map(_is_int4, packed.get_ops())):
            moments = moments or moments_by_name(inputs_of_products(model, feeds))
            _round_again(packed, model, moments)
            found = comparison.attempt(packed)
    if found is None:
        raise InfeasibleRecipeError("int4_weight_only must change at least one layer, but nncf stores all of them in other bits")
    return found.model


def _every_layer(model: Model, feeds: Sequence[Arrays]) -> Model:  # noqa: ARG001
    return _packed(model, group_size=_GROUP, ratio=1.0)


def _most_layers(model: Model, feeds: Sequence[Arrays]) -> Model:
    """A fifth of the weights is int8: those that nncf expects to matter the most, by their inputs."""
    with load_nncf() as nncf:
        return _packed(model, group_size=_GROUP, ratio=_SHARE_OF_INT4, dataset=nncf.Dataset(feeds), subset_size=len(feeds))


def _last_layer(model: Model, feeds: Sequence[Arrays]) -> Model:  # noqa: ARG001
    return _packed(model, group_size=-1, all_layers=True, ratio=1.0)


def _packed(model: Model, **options: Any) -> Model:
    """Round to nearest. Groups are smaller where a row is no multiple of their size, or the layer is int8."""
    with load_nncf() as nncf:
        adjusted = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, advanced_parameters=adjusted, **options)


def _is_int4(node: Any) -> bool:
    return bool(node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i4")


def _round_again(packed: Model, model: Model, moments: Mapping[str, Tensor]) -> None:
    """Replace the numbers that nncf has rounded to nearest in `packed`. `moments` are those of the layers of the float `model`."""
    constants = {node.get_friendly_name(): node for node in packed.get_ops() if node.get_type_name() == "Constant"}
    weights: dict[str, NDArray[Any]] = {}
    sums: dict[str, Tensor] = {}
    for node in weighted_layers(model).values():
        weight, read = node.input_value(1).get_node(), source(node)
        name = weight.get_friendly_name()
        if read in moments and name in constants and node.get_attributes()["transpose_b"] and _is_int4(constants[name]):
            weights[name], sums[name] = weight.data, sums.get(name, torch.zeros(())) + moments[read]
    for name, weight in weights.items():
        numbers, scale = constants[name], constants[f"{name}/scale"]
        rounded = round_in_groups(torch.tensor(weight), sums[name], _grid, numbers.get_output_shape(0)[-1])
        replace_constant(numbers, (rounded.numbers - _MIDDLE).numpy().astype(np.int8))
        replace_constant(scale, rounded.scale.numpy().astype(np.float16))


def _grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers from -8 to 7, without an offset. The largest weight becomes -8, whatever its sign: then the scale is negative."""
    is_low = -low >= high
    scale = torch.maximum(torch.where(is_low, -low, high) / _MIDDLE, torch.where(is_low, high, -low) / _HIGHEST)
    scale = scale.clamp(min=_SMALLEST_SCALE).half().float() * torch.where(is_low, 1.0, -1.0)
    return scale, -_MIDDLE * scale
