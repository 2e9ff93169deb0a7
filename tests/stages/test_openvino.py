"""OpenVINO computes in the dtype that was asked for, or says why it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autocut.errors import BundleError, InfeasibleRecipeError
from autocut.stages import lowering
from autocut.stages.compile import openvino

pytest.importorskip("openvino")


@pytest.fixture
def fresh_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """What OpenVINO is found to be on this machine is forgotten, before and afterwards."""
    monkeypatch.setattr(openvino, "node_folder", lambda: tmp_path / "node")
    openvino._probe.cache_clear()
    yield tmp_path / "node"
    openvino._probe.cache_clear()


def test_a_runtime_that_dies_is_a_reason_and_is_tried_once(fresh_probe: Path, monkeypatch: pytest.MonkeyPatch):
    """On some AMD processors OpenVINO dies of SIGFPE: that must cost neither the search nor every worker a process."""
    monkeypatch.setattr(openvino, "_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGFPE)")
    reason = lowering.infeasible_reason("fp32", "openvino")
    monkeypatch.setattr(openvino, "_try_out", lambda: pytest.fail("it was tried again"))
    openvino._probe.cache_clear()

    assert reason is not None
    assert "does not run on this machine" in reason
    assert lowering.infeasible_reason("fp32", "openvino") == reason


def test_a_probe_without_an_answer_is_not_remembered(fresh_probe: Path, monkeypatch: pytest.MonkeyPatch):
    """The machine may have been busy: the next search tries again."""
    monkeypatch.setattr(openvino, "_PROBE", "input()")
    monkeypatch.setattr(openvino, "_PROBE_S", 0.0)

    assert "does not answer" in str(lowering.infeasible_reason("fp32", "openvino"))
    assert not fresh_probe.exists()


def test_a_dtype_without_units_for_it_is_infeasible(fresh_probe: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenVINO would compute in float32 and keep the name."""
    monkeypatch.setattr(openvino, "_try_out", lambda: (("FP32", "INT8"), None))

    assert "no BF16 units" in lowering.infeasible_reason("bf16", "openvino")
    assert lowering.infeasible_reason("fp32", "openvino") is None


def test_a_dtype_that_changes_no_layer_is_infeasible(tmp_path: Path):
    """A network without a product has nothing that int8 could make cheaper."""
    network = nn.Sequential(nn.ReLU(), nn.Flatten()).eval()

    with pytest.raises(InfeasibleRecipeError, match="must change at least one layer"):
        lowering.lower(network, "int8_dynamic", "openvino", [torch.randn(8, 4, 2)], tmp_path)


def test_float32_is_asked_for_by_name(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """Left to itself, OpenVINO computes a float32 model in bf16 where the processor can."""
    lowering.lower(tiny_mlp, "fp32", "openvino", [mlp_inputs], tmp_path)

    assert json.loads((tmp_path / "model.json").read_text()) == {"INFERENCE_PRECISION_HINT": "f32"}
    torch.testing.assert_close(lowering.load(tmp_path, "openvino")(mlp_inputs), tiny_mlp(mlp_inputs), rtol=1e-5, atol=1e-5)


def test_an_artifact_with_a_missing_file_is_refused(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """OpenVINO would ask for a file that nobody knows."""
    lowering.lower(tiny_mlp, "fp32", "openvino", [mlp_inputs], tmp_path)
    (tmp_path / "model.bin").unlink()

    with pytest.raises(BundleError, match=r"model\.xml must be a model for OpenVINO"):
        lowering.load(tmp_path, "openvino")


def test_an_artifact_cannot_make_the_runtime_write_elsewhere(tmp_path: Path):
    """OpenVINO would make the folder that CACHE_DIR names, and write its compiled model there, before the model was used."""
    folder = tmp_path / "model"
    folder.mkdir()
    lowering.lower(nn.Linear(8, 4).eval(), "fp32", "openvino", [torch.zeros(2, 8)], folder)
    for asked in ({"CACHE_DIR": str(tmp_path / "elsewhere")}, {"WEIGHTS_PATH": "/etc/passwd"}, [], {"EXECUTION_MODE_HINT": None}):
        (folder / "model.json").write_text(json.dumps(asked))
        with pytest.raises(BundleError, match="propert"):
            lowering.load(folder, "openvino")

    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_quantizer_is_told_at_once_which_properties_no_artifact_may_have():
    """Else the author of a plug-in would learn it from a bundle that does not load."""
    with pytest.raises(ValueError, match="got 'CACHE_DIR'"):
        openvino.OpenVinoOptions(properties={"CACHE_DIR": "cache"})


def test_a_call_fetches_no_tensors_of_its_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """That took longer than a small model itself, and twice as long where ONNX Runtime was imported too: in every search."""
    from openvino.utils.data_helpers.wrappers import _InferRequestWrapper

    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    inputs = torch.randn(3, 4)
    lowering.lower(network, "fp32", "openvino", [inputs], tmp_path)
    run = lowering.load(tmp_path, "openvino", 1)
    monkeypatch.setattr(_InferRequestWrapper, "_is_single_input", lambda request: pytest.fail("it fetched them"))

    torch.testing.assert_close(run(inputs), network(inputs).detach(), rtol=1e-4, atol=1e-5)
