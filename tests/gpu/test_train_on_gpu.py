"""What only a GPU can prove: models that it trains are those that the CPU trains, and the CPU serves them.

python -m pytest -m gpu tests/gpu
"""

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from autocut.execution.server_process import _environment
from autocut.stages.train import CPU, Device, Teacher, teacher_logits, train_model
from autocut.task.task import Task

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")]
CUDA = Device("cuda")


@pytest.fixture
def task():
    """Images of two classes, for a network with every kind of layer that has a kernel of its own on a GPU."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (512,), generator=generator)
    images = torch.randn(512, 1, 8, 8, generator=generator) + labels[:, None, None, None]
    parts = {
        name: (images[start:end], labels[start:end])
        for name, start, end in (("train", 0, 320), ("validation", 320, 416), ("test", 416, 512))
    }

    def build():
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1),
            nn.Linear(64, 2),
        )  # fmt: skip

    return Task("blobs", build, **parts, batch_size=32, epochs=3, pretrained=False)


def trained(task, device, **options):
    """Train the task's model with its teacher, as a search does."""
    model, settings = task.build_model(), {"train.epochs": 3, "distill.loss": "kl", "distill.alpha": 0.3}
    device.open()
    with device.exact():
        teacher = Teacher(model, teacher_logits(model, task, device=device))
        return train_model(model, task, settings, teacher=teacher, device=device, **options)


def test_a_gpu_trains_to_the_loss_of_the_cpu_and_returns_a_model_of_the_cpu(task):
    """The curves are the same up to rounding; dropout draws other numbers there."""
    here, there = trained(task, CPU), trained(task, CUDA)

    assert {tensor.device.type for tensor in there.model.state_dict().values()} == {"cpu"}
    assert there.history[-1].train_loss == pytest.approx(here.history[-1].train_loss, abs=0.1)


def test_two_trainings_on_a_gpu_give_the_same_weights(task):
    """No TF32, and sums in one order."""
    first, second = (trained(task, CUDA).model.state_dict() for _ in range(2))

    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_an_interrupted_training_on_a_gpu_goes_on_to_the_same_weights(task, tmp_path):
    """Its checkpoint is of no device."""
    through, path = trained(task, CUDA).model, tmp_path / "training.pt"

    def die(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(task, CUDA, checkpoint=path, on_epoch=die)
    saved = torch.load(path, weights_only=True)
    resumed = trained(task, CUDA, checkpoint=path).model

    assert {tensor.device.type for tensor in saved["model"].values()} == {"cpu"}
    torch.testing.assert_close(resumed.state_dict(), through.state_dict(), rtol=0, atol=0)
    assert train_model(copy.deepcopy(resumed), task, {"train.epochs": 1}).samples_seen == 320


def test_a_fork_of_the_prepared_process_opens_the_gpu():
    """The process that workers are forked from imports everything and opens nothing; its children see what their caller sees."""
    code = """
import os
from autocut.execution.preparation import import_for_start, prepare_for_later
import_for_start()
list(prepare_for_later(None))
import torch
assert not torch.cuda.is_initialized()
pid = os.fork()
if pid == 0:
    del os.environ["CUDA_VISIBLE_DEVICES"], os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]
    from autocut.stages.train import Device
    Device("cuda").open()
    os._exit(int(float(torch.ones(2, device="cuda").sum()) != 2))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    environment = _environment()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_digits_trained_on_a_gpu_are_served_on_the_cpu_as_good_as_those_that_the_cpu_trained(tmp_path):
    """The same command but for the device: both fronts have a verified bundle, and their best accuracies are within 3 points."""
    best = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        words = ["search", "--budget", "4m", "--space", "quick", "--out", str(out), "--train-on", device, "--json"]
        done = subprocess.run([sys.executable, "-m", "autocut", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        front = json.loads(done.stdout)
        assert front["trained_on"] == device
        verified = [point for point in front["points"] if point["bundle"]]
        best[device] = max(point["values"]["accuracy"] for point in verified)
        manifests = [json.loads(path.read_text()) for path in out.glob("bundles/*/manifest.json")]
        trained_on = {manifest.get("trained_on") for manifest in manifests if manifest["recipe"].get("train.epochs")}
        assert trained_on <= {None if device == "cpu" else "cuda"}

    assert best["cuda"] == pytest.approx(best["cpu"], abs=0.03)
