"""What only a GPU can prove: lowerings for it answer as float32 does, are timed there, and end in bundles that are verified there.

python -m pytest -m gpu tests/gpu
"""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from autocut.deploy.bundle import load as load_bundle
from autocut.errors import BundleError, InfeasibleRecipeError
from autocut.measure.latency import measure_latency
from autocut.stages import lowering
from autocut.stages.compile import cuda_modes
from autocut.stages.device import Device
from autocut.stages.quantize import output_tolerance, quantizers

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")]
CUDA = Device("cuda")
LOOSE = 20
"""As in `autocut.pipeline.parity`."""


class Net(nn.Module):
    """Every kind of layer that has a kernel of its own on a GPU, and a tensor that `forward` makes."""

    def __init__(self, width=64):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10))

    def forward(self, images):
        """Class scores."""
        tokens = self.features(images).flatten(2).transpose(1, 2)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(attended.mean(1)) + torch.zeros(10, device=images.device)


@pytest.fixture(scope="module")
def network():
    """A network that all lowerings must agree on."""
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def images():
    """A batch of inputs, on the CPU."""
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", cuda_modes.names())
@pytest.mark.parametrize("dtype", quantizers.names())
def test_every_lowering_answers_as_the_model_does(dtype, mode, network, images, tmp_path):
    """At batch sizes that it was compiled for, between them, and above; again and again, because a CUDA graph has one memory."""
    if reason := lowering.infeasible_reason(dtype, mode, CUDA):
        pytest.skip(f"{dtype} with {mode}: {reason}")
    with torch.inference_mode():
        wanted = network(images)
    lowering.lower(network, dtype, mode, [images], tmp_path, batch_sizes=(1, 4), device=CUDA)
    predict = lowering.load(tmp_path, mode, device=CUDA)
    allowed = LOOSE * output_tolerance(dtype) * float(wanted.abs().max())

    for size in (1, 4, 3, 8):
        assert float((predict(images[:size]) - wanted[:size]).abs().max()) <= allowed
    first, second = predict(CUDA.move(images[:4])), predict(CUDA.move(images[4:]))
    assert first.device.type == "cuda"
    assert float((first.cpu() - wanted[:4]).abs().max()) <= allowed
    assert float((second.cpu() - wanted[4:]).abs().max()) <= allowed


def test_a_timed_call_lasts_until_the_gpu_is_done():
    """A product of 8192 x 8192 matrices takes longer than its launch: 1.1e12 operations, at most 2e15 in a second on any GPU."""
    model = nn.Linear(8192, 8192, bias=False).eval().to("cuda")
    inputs = torch.randn(8192, 8192, device="cuda")

    def predict(given):
        with torch.inference_mode():
            return model(given)

    assert measure_latency(predict, None, inputs, samples=16).p50_ms.value > 0.5


def test_a_pair_below_the_compute_capability_that_it_needs_is_infeasible(monkeypatch):
    """The kernels of an older GPU are not there, or only simulated."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))
    with pytest.raises(InfeasibleRecipeError, match=r"has compute capability 6\.1, bfloat16 from 8\.0 on"):
        lowering.require_feasible("bf16", "eager", CUDA)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Folder and front of a search of two minutes for models that the GPU serves."""
    out = tmp_path_factory.mktemp("searched") / "digits"
    words = ["search", "--budget", "2m", "--serve-on", "cuda", "--price-per-hour", "4", "--out", str(out), "--json"]
    done = subprocess.run([sys.executable, "-m", "autocut", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_a_search_for_a_gpu_ends_with_bundles_that_were_verified_there(searched):
    """Each names the GPU; what they answer is what the examples say."""
    out, front = searched
    manifests = [json.loads(path.read_text()) for path in out.glob("bundles/*/manifest.json")]

    assert front["served_on"] == "cuda"
    assert any(point["bundle"] for point in front["points"])
    assert {manifest["served_on"]["name"] for manifest in manifests} == {torch.cuda.get_device_name(0)}
    for folder in out.glob("bundles/trial-*"):
        assert load_bundle(folder).device == CUDA


def test_a_bundle_is_refused_where_there_is_no_gpu(searched):
    """In a process that sees none."""
    folder = next(searched[0].glob("bundles/trial-*"))
    code = f"import autocut; autocut.load({str(folder)!r})"
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=hidden, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "bundle must be loaded on the device that it was made for, cuda" in done.stderr


def test_machine_code_for_another_compute_capability_is_refused(searched, monkeypatch):
    """An ahead-of-time package holds kernels for one."""
    from autocut.deploy import devices
    from autocut.deploy.manifest import read_manifest

    manifest = read_manifest(next(searched[0].glob("bundles/trial-*")))
    older = manifest.served_on.model_copy(update={"capability": "1.0"})
    with pytest.raises(BundleError, match=r"must run on compute capability 1\.0, for which it is compiled"):
        devices.device_of(manifest.model_copy(update={"mode": "aot_inductor", "served_on": older}))
