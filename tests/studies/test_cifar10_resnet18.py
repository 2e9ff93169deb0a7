"""The CIFAR-10 study with a ResNet-18 that is trained here. These tests train nothing."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from autocut.errors import TaskError
from autocut.task.check import faults_of

RECORD = 3073


def write_batch(path, count, seed):
    """Write random records in the binary layout."""
    records = torch.randint(0, 256, (count, RECORD), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    records[:, 0] %= 10
    path.write_bytes(records.numpy().tobytes())


@pytest.fixture(name="small")
def _small(tmp_path, monkeypatch, study_task):
    """The task on random images, with random weights of a network that is 16 times narrower, and of its teacher."""
    write_batch(tmp_path / "data_batch_1.bin", 70, 1)
    write_batch(tmp_path / "test_batch.bin", 80, 2)
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])  # train.py puts its folder there once more
    task = study_task("cifar10_resnet18")
    state = {f"module.{name}": value for name, value in sys.modules["sibling"].published.ResNet(9).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resnet56-4bfd9763.th")
    resnet18 = sys.modules["resnet18"]
    monkeypatch.setattr(resnet18, "_WIDTHS", (4, 8, 16, 32))
    torch.save(resnet18.ResNet18().state_dict(), tmp_path / "resnet18.pt")
    monkeypatch.setenv(resnet18.WEIGHTS, str(tmp_path / "resnet18.pt"))
    return task


def test_the_task_has_the_data_of_the_resnet20_study_and_no_faults(small):
    """Its halves of the test images are those of `studies/cifar10_resnet20`, loaded from there; training images are augmented."""
    assert sys.modules["sibling"].data.__file__.endswith("cifar10_resnet20/data.py")
    assert (len(small.train_data), len(small.validation_data), len(small.locked_test)) == (70, 40, 40)
    assert not torch.equal(small.train_data[0][0], small.train_data[0][0])
    assert faults_of(small) == []


def test_the_network_has_the_usual_size(study_task, monkeypatch, tmp_path):
    """A stem of 3 x 3, and 64 to 512 channels."""
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    study_task("cifar10_resnet18")
    with torch.device("meta"):
        network = sys.modules["resnet18"].ResNet18()

    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962


def test_weights_that_are_missing_or_of_something_else_are_told(small, monkeypatch, tmp_path):
    """The message names the variable, and the hint the program that makes the weights."""
    torch.save({"linear.weight": torch.zeros(1)}, tmp_path / "resnet18.pt")
    with pytest.raises(TaskError, match=r"resnet18\.pt must be the weights of this network"):
        small.build_model()
    monkeypatch.delenv("CIFAR10_RESNET18_WEIGHTS")
    with pytest.raises(TaskError, match="CIFAR10_RESNET18_WEIGHTS must name the file") as told:
        small.build_model()
    assert "train.py" in told.value.hint


def test_an_image_is_mirrored_and_shifted_whole(small):
    """Each image is a window of the padded image or of its mirror image."""
    images = torch.rand(16, 3, 32, 32) + 1
    changed = sys.modules["augmentation"].mirrored_and_shifted(images, torch.Generator().manual_seed(0))

    for image, found in zip(images, changed, strict=True):
        windows = [
            torch.nn.functional.pad(each, (4,) * 4)[:, down : down + 32, right : right + 32]
            for each in (image, image.flip(2)) for down in range(9) for right in range(9)
        ]  # fmt: skip
        assert any(torch.equal(found, window) for window in windows)
    assert not torch.equal(images, changed)


def test_half_of_the_images_of_a_training_batch_are_mixed(small):
    """`train.py` leaves the first half as it is; the others lie between two images."""
    images = torch.rand(16, 3, 32, 32)
    mixed = importlib.import_module("train").mixed(images, torch.Generator().manual_seed(0))

    assert torch.equal(mixed[:8], images[:8])
    assert not torch.equal(mixed[8:], images[8:])
    assert images.min() <= mixed.min()
    assert mixed.max() <= images.max()


def test_a_training_goes_on_from_its_last_epoch(small, tmp_path):
    """What `train.py` keeps after each epoch is enough for that."""
    train, file = importlib.import_module("train"), tmp_path / "resnet18.pt.part"
    network, other = sys.modules["resnet18"].ResNet18(), sys.modules["resnet18"].ResNet18()
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (network, other)]
    train._write({"model": network.state_dict(), "optimizer": optimizers[0].state_dict(), "epochs": 3}, file)

    assert train._resume(tmp_path / "nothing.part", other, optimizers[1]) == 0
    assert train._resume(file, other, optimizers[1]) == 3
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())
