"""A task of a folder of pictures: classes by sorted names, files read one by one, validation never augmented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocut.errors import TaskError
from autocut.task.check import faults_of
from autocut.task.finalization_key import issue_finalization_key
from autocut.tasks import from_torchvision_folder
from autocut.tasks.pictures import Prepared

Image = pytest.importorskip("PIL.Image", reason="Pillow reads pictures")

COUNTS = {"train": 12, "test": 4}
COLOURS = {"apple": (200, 30, 30), "pear": (30, 200, 30)}


def build_model() -> nn.Module:
    """The mean colour decides."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """Red apples, green pears; pictures of several sizes and formats."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for number, (name, colour) in enumerate(COLOURS.items()):
            (into := tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(rng.normal(colour, 20, (20 + index, 30, 3)), 0, 255).astype(np.uint8)
                picture = Image.fromarray(pixels)
                picture.convert("L" if index == number else "RGB").save(into / f"{index}.{'png' if index % 2 else 'jpg'}")
            (into / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_becomes_a_task_without_faults(folder):
    """Grey pictures have three channels too; what is no picture is passed over."""
    task = from_torchvision_folder(build_model, folder, name="fruit", size=16, pretrained=False)
    inputs, targets = next(iter(task.loader(task.train_data, 100)))

    assert faults_of(task) == []
    assert inputs.shape[1:] == (3, 16, 16)
    assert inputs.dtype == torch.float32
    assert len(task.train_data) + len(task.validation_data) == 24
    reds = inputs[targets == 0].mean((0, 2, 3))
    assert reds[0] > reds[1]  # class 0 is "apple"
    assert len(task.locked_test.open(issue_finalization_key("test"))) == 8


@pytest.mark.parametrize("shape", [(40, 20), (7, 30), (8, 8)])
def test_a_picture_is_prepared_as_torchvision_prepares_it(shape):
    """A constant picture: divided by 255, minus ImageNet's mean, by its deviation; small ones are made larger."""
    prepared = Prepared(8)(Image.new("RGB", shape, (255, 0, 51)))

    wanted = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(prepared, wanted[:, None, None].expand(3, 8, 8), atol=1e-6)


def test_the_middle_of_a_picture_is_cut_out():
    """Left and right of it are lost, top and bottom nearly stay."""
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 255
    prepared = Prepared(14)(Image.fromarray(pixels))  # resized to (16, 48), cut to (14, 14)

    assert float(prepared[0].mean()) == pytest.approx((1 - 0.485) / 0.229, abs=1e-4)


def test_validation_is_never_augmented(folder):
    """Split off train or not, its pictures are prepared as those of test."""

    def augment(picture):
        return torch.rand(3, 8, 8)

    split_off = from_torchvision_folder(build_model, folder, name="fruit", size=8, train_transform=augment, pretrained=False)
    assert torch.equal(split_off.validation_data[0][0], split_off.validation_data[0][0])
    assert not torch.equal(split_off.train_data[0][0], split_off.train_data[0][0])
    assert faults_of(split_off) == []

    (folder / "test").rename(folder / "val")
    (folder / "train" / "apple" / "0.jpg").rename(folder / "moved.jpg")
    for name in COLOURS:
        (folder / "test" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(folder / "test" / name / "0.png")
    own = from_torchvision_folder(build_model, folder, name="fruit", size=8, train_transform=augment, pretrained=False)
    assert len(own.validation_data) == 8
    assert len(own.train_data) == 23


@pytest.mark.parametrize(
    ("spoil", "subject", "rule"),
    [
        (lambda folder: (folder / "test").rename(folder / "other"), "folder", "must have a folder test"),
        (lambda folder: (folder / "train").rename(folder / "other"), "folder", "at least 2 classes"),
        (lambda folder: (folder / "test" / "plum").mkdir(), "task.test", "'plum'"),
        (lambda folder: [file.unlink() for file in (folder / "test").rglob("*.*")], "task.test", "must have pictures"),
        (lambda folder: (folder / "train" / "pear" / "1.png").write_bytes(b"no picture"), "task.train", "1.png"),
    ],
)
def test_what_a_folder_lacks_is_told(spoil, subject, rule, folder):
    """As the task's fault, with the file or the class."""
    spoil(folder)
    try:
        task = from_torchvision_folder(build_model, folder, name="fruit", size=8, pretrained=False)
        told = [fault.message for fault in faults_of(task)]
        task.locked_test.open(issue_finalization_key("test"))
    except TaskError as error:
        told = [error.message]
    assert subject in told[0]
    assert rule in told[0]
