"""Which libraries a stage key names."""

from __future__ import annotations

import importlib.metadata

import pytest

from autocut.stages import libraries, lowering
from autocut.stages.libraries import library_versions, mode_libraries, required_libraries, runtime_versions
from autocut.stages.quantize import quantizers


def test_required_libraries_are_those_that_methods_name():
    """No second list: what a method requires is in every key."""
    assert {"torch", "torchao", "torch_pruning", "onnxruntime", "onnxscript"} <= set(required_libraries())


def test_a_new_method_brings_its_library(monkeypatch: pytest.MonkeyPatch):
    """A plug-in's results depend on its library's version."""
    monkeypatch.setattr(quantizers, "_methods", dict(quantizers._methods))
    quantizers.register("int4_mine", requires=("numpy",))(lambda model, calibration: model)

    assert "numpy" in required_libraries()
    assert library_versions()["numpy"] == importlib.metadata.version("numpy")


def test_versions_are_those_of_the_distributions():
    """A module may come from a distribution of another name."""
    versions = library_versions()

    assert versions["torch-pruning"] == importlib.metadata.version("torch-pruning")
    assert versions["torch"] == importlib.metadata.version("torch")


def test_a_missing_library_is_left_out_and_two_distributions_of_one_module_are_named(monkeypatch: pytest.MonkeyPatch):
    """Onnx Runtime comes as onnxruntime or onnxruntime-gpu; where it is not installed its methods are infeasible."""
    monkeypatch.setattr(
        libraries, "distributions", lambda: {"torch": ("torch",), "onnxruntime": ("numpy", "torch-pruning", "numpy")}
    )

    assert set(library_versions()) == {"torch", "numpy", "torch-pruning"}


def test_a_bundle_names_what_runs_artifacts_and_not_what_makes_them():
    """Torch first; onnxscript is needed for the export alone."""
    assert list(runtime_versions()) == ["torch", "torchao", "onnxruntime", "openvino", "numpy"]


def test_a_library_of_one_mode_alone_leaves_the_keys_of_other_stages_alone():
    """A new OpenVINO makes its own artifacts anew; no model is trained again for it."""
    assert {"openvino", "nncf"} <= set(required_libraries())
    assert not {"openvino", "nncf"} & set(library_versions())
    named = f"openvino {importlib.metadata.version('openvino')}"
    assert named in lowering.method_versions("fp32", "openvino")
    assert named in lowering.conversion_version("openvino")
    assert "," not in lowering.conversion_version("onnxruntime")


def test_the_libraries_of_one_mode_alone_are_named_present_or_not(monkeypatch: pytest.MonkeyPatch):
    """A study whose trials ran by a mode must notice that they have changed or gone."""
    assert mode_libraries() == {"openvino": {name: importlib.metadata.version(name) for name in ("openvino", "nncf")}}
    monkeypatch.setattr(libraries, "distributions", lambda: {"openvino": ("openvino",)})

    assert mode_libraries()["openvino"]["nncf"] is None
