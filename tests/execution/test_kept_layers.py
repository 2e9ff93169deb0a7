"""The lowerings of a space that keeps layers in float."""

from __future__ import annotations

from autocut.execution.preflight import LoweringProbe, Preflight, TaskFacts, with_kept_layers
from autocut.space import Axis, Space

DTYPES = Axis("quantize.dtype", ("fp32", "int8_dynamic", "int8_static"))
KEPT = Axis("quantize.keep_float", (0, 4), integer=True, when={"quantize.dtype": ("int8_static",)})
FOUND = Preflight(
    {},
    {
        ("fp32", "onnxruntime"): LoweringProbe(None, "fp32 v1", 4.0),
        ("int8_static", "onnxruntime"): LoweringProbe(None, "int8 by onnxruntime", 4.0, 2.0, keeps_float=True),
        ("int8_static", "aot_inductor"): LoweringProbe(None, "int8_static v1", 30.0, 2.0),
        ("int8_static", "openvino"): LoweringProbe("does not run here", "", 5.0, 2.0, keeps_float=True),
    },
    TaskFacts("tiny", "f", 100, 1, is_pretrained=True),
)


def test_each_lowering_that_can_keep_layers_gets_a_sibling_that_does():
    """It has an accuracy of its own, and is tried after the one that keeps none."""
    found = with_kept_layers(FOUND, Space("kept", {"accuracy": "maximize"}, (DTYPES, KEPT))).lowerings

    assert found.keys() - FOUND.lowerings.keys() == {("int8_static:4", "onnxruntime"), ("int8_static:4", "openvino")}
    plain, kept = found["int8_static", "onnxruntime"], found["int8_static:4", "onnxruntime"]
    assert kept.graph == "int8 by onnxruntime, 4 layers in float"
    assert plain.speedup > kept.speedup > 1
    assert found["int8_static:4", "openvino"].reason == "does not run here"


def test_a_space_without_the_axis_has_the_lowerings_that_it_had():
    """So its searches decide as before."""
    assert with_kept_layers(FOUND, Space("plain", {"accuracy": "maximize"}, (DTYPES,))) == FOUND
