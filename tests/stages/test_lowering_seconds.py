"""What a lowering of a large model is expected to take, before one was made."""

import pytest

from autocut.stages import lowering


@pytest.mark.parametrize("mode", ["onnxruntime", "openvino"])
def test_static_int8_is_expected_to_take_longer_than_dynamic_int8(mode):
    """It runs the calibration batches; for BERT-base that is a minute more. A float graph needs only its conversion."""
    of_dtype = [lowering.seconds_per_100mb(dtype, mode) for dtype in ("fp32", "int8_dynamic", "int8_static")]

    assert None not in of_dtype
    assert of_dtype == sorted(of_dtype)


def test_where_a_part_is_not_known_nothing_is():
    """Layers that stay in float are found by a scan; a mode without the dtype, or an unmeasured compiler, gives no number."""
    assert lowering.seconds_per_100mb("int8_static:4", "onnxruntime") is None
    assert lowering.seconds_per_100mb("bf16", "onnxruntime") is None
    assert lowering.seconds_per_100mb("bf16", "aot_inductor") is None
