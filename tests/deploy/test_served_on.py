"""A bundle names the GPU that it is for, loads there, and is refused elsewhere with the reason."""

import shutil

import pytest
import torch

from autocut.deploy.bundle import Claims, load, write_bundle
from autocut.deploy.examples import collect_examples
from autocut.deploy.manifest import ServedOn, read_manifest
from autocut.deploy.verify_process import find
from autocut.errors import BundleError
from autocut.measure.footprint import compressed_size_bytes, size_bytes
from autocut.measure.latency import measure_latency
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Accuracy, Cost, Interval, Measurement
from autocut.recipe import Recipe
from autocut.stages import lowering
from autocut.stages.device import CPU, Device
from tests import second_device
from tests.deploy.conftest import TinyNet, make_bundle, make_data, rewrite_manifest

SECOND = Device(second_device.KIND)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(autouse=True)
def _serving(monkeypatch):
    second_device.serve(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle of a model that the second device serves, with true claims."""
    with pytest.MonkeyPatch.context() as patch:
        second_device.serve(patch)
        return write(tmp_path_factory.mktemp("made"))


@pytest.fixture
def bundle(made, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(made, tmp_path / "bundle")


def write(folder):
    """Lower and time a model there, and write its bundle."""
    torch.manual_seed(0)
    data, artifact = make_data(), folder / "artifact"
    artifact.mkdir()
    lowering.lower(TinyNet().eval(), "fp32", "eager", [inputs for inputs, _ in data], artifact, device=SECOND)
    predict = lowering.load(artifact, "eager", device=SECOND)
    examples = collect_examples(predict, data)
    right = sum(int((batch.outputs.argmax(1) == batch.targets).sum()) for batch in examples) / 48
    latencies = tuple(measure_latency(predict, None, SECOND.move(data[0][0][:size]), min_seconds=0.05) for size in (1, 16))
    cost = Cost(latencies, size_bytes(artifact), compressed_size_bytes(artifact), 1, 5.0, machine_fingerprint())
    accuracy = Accuracy("test", 48, Interval(right, max(0.0, right - 0.1), min(1.0, right + 0.1)))
    claims = Claims(
        "tiny", Recipe(), Measurement(accuracy, cost), {"accuracy": right}, "classification", "accuracy", "autocut search", 0,
        trial=3, served_on=SECOND,
    )  # fmt: skip
    write_bundle(artifact, folder / "bundle", claims, examples)
    return folder / "bundle"


def test_a_bundle_is_loaded_and_verified_on_the_device_that_it_names(bundle):
    """The verifying process times it there too, with inputs that lie there."""
    deployed = load(bundle)
    second_device.module.calls.clear()
    findings = find(bundle, None, 0.9)

    assert read_manifest(bundle).served_on == ServedOn(kind="madeup", name="madeup", capability=None)
    assert deployed.device == SECOND
    assert deployed(make_data()[0][0]).device.type == "cpu"
    assert findings.failure is None
    assert findings.output_deviation == 0
    assert [latency.batch_size for latency in findings.latencies] == [1, 16]
    assert second_device.module.calls.count("synchronize") > 64


def test_its_readme_and_its_server_use_the_gpu(bundle):
    """By torch alone; a person reads what a timed call is."""
    readme, server, container = ((bundle / name).read_text() for name in ("README.md", "serve.py", "Dockerfile"))

    assert "with inputs that lie there and outputs that stay there" in readme
    assert "docker run --gpus all" in readme
    assert "move_to_device_pass(torch.export.load('model/graph.pt2'), \"cuda\")" in server
    assert "to('cuda')" in server
    assert "--gpus all" in container


def test_the_code_of_its_server_answers(bundle, monkeypatch):
    """As far as it can be run without a GPU: on the CPU in its place."""
    names = {"__name__": "serve"}
    exec((bundle / "serve.py").read_text().replace("cuda", "cpu"), names)
    monkeypatch.chdir(bundle)
    inputs = make_data()[0][0]

    torch.testing.assert_close(names["load"]()([inputs.numpy()]), load(bundle)(inputs))


@without_gpu
def test_a_bundle_for_a_gpu_is_refused_where_there_is_none(bundle):
    """Before its model is read: the graph would run on the CPU, but not as claimed."""
    rewrite_manifest(bundle, served_on=ServedOn(kind="cuda", name="NVIDIA H200", capability="9.0"))
    with pytest.raises(BundleError, match=r"on the device that it was made for, cuda \(NVIDIA H200\), got none: ") as caught:
        load(bundle)

    assert "search on this machine" in caught.value.hint


def test_machine_code_for_another_compute_capability_is_refused(bundle, monkeypatch):
    """A graph for one runs on the other: it is compiled when it is loaded."""
    rewrite_manifest(bundle, served_on=ServedOn(kind="madeup", name="NVIDIA H200", capability="9.0"))
    assert load(bundle).device == SECOND
    monkeypatch.setattr(lowering, "is_compiled_ahead", lambda *_: True)
    with pytest.raises(BundleError, match=r"must run on compute capability 9.0, for which it is compiled, got None \(madeup\)"):
        load(bundle)


def test_a_device_of_a_later_version_is_refused(bundle):
    """Nobody here knows how to load it."""
    rewrite_manifest(bundle, served_on=ServedOn(kind="tpu", name="v9", capability=None))
    with pytest.raises(BundleError, match=r"bundle must be for cpu or cuda .*got tpu \(v9\)"):
        load(bundle)


def test_a_bundle_of_the_cpu_names_no_device(tmp_path):
    """Its manifest has the fields that it had in every earlier version."""
    on_cpu = make_bundle(tmp_path / "bundle", tmp_path / "artifact")

    assert "served_on" not in (on_cpu / "manifest.json").read_text()
    assert load(on_cpu).device == CPU
