"""The CIFAR-10 study with the published ResNet-20."""

from __future__ import annotations

import sys

import pytest
import torch

from autocut.errors import TaskError
from autocut.task.batches import call
from autocut.task.check import check_task, faults_of
from autocut.task.finalization_key import issue_finalization_key

RECORD = 3073


def write_batch(path, count, seed):
    """Write random records in the binary layout."""
    records = torch.randint(0, 256, (count, RECORD), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    records[:, 0] %= 10
    path.write_bytes(records.numpy().tobytes())
    return records


@pytest.fixture(name="small")
def _small(tmp_path, monkeypatch, study_task):
    """The task on random images and random weights in a folder of their own."""
    write_batch(tmp_path / "data_batch_1.bin", 70, 1)
    write_batch(tmp_path / "test_batch.bin", 80, 2)
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    task = study_task("cifar10_resnet20")
    state = {f"module.{name}": value for name, value in sys.modules["resnet"].ResNet(3).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resnet20-12fca82f.th")
    return task


def test_the_task_reads_the_binary_layout_and_has_no_faults(small):
    """Batches that are not there are left out; option A's padding can be exported with a free batch size."""
    assert (len(small.train_data), len(small.validation_data), len(small.locked_test)) == (70, 40, 40)
    assert faults_of(small) == []


def test_the_halves_of_the_test_images_do_not_depend_on_the_order_of_rows(small, tmp_path):
    """The copy that one has may be shuffled."""
    data = sys.modules["data"]
    before = data.validation().pixels
    records = torch.frombuffer(bytearray((tmp_path / "test_batch.bin").read_bytes()), dtype=torch.uint8).view(-1, RECORD)
    (tmp_path / "test_batch.bin").write_bytes(records.flip(0).numpy().tobytes())
    data.official_test.cache_clear()

    assert torch.equal(data.validation().pixels, before)


def test_the_network_is_the_published_one(small):
    """Its number of parameters, and its weights from the checkpoint, whatever the seed."""
    assert sum(parameter.numel() for parameter in small.build_model().parameters()) == 269_722
    assert torch.equal(small.build_model(1).linear.weight, small.build_model(2).linear.weight)


def test_damaged_files_are_told_with_their_path(small, tmp_path):
    """A file cut short, and a checkpoint of something else."""
    (tmp_path / "data_batch_1.bin").write_bytes(b"1" * 5000)
    torch.save({"state_dict": {}}, tmp_path / "resnet20-12fca82f.th")
    with pytest.raises(TaskError, match=r"data_batch_1\.bin must be records"):
        _ = small.train_data
    with pytest.raises(TaskError, match=r"resnet20-12fca82f\.th must be the published checkpoint"):
        small.build_model()


def test_resnet56_is_the_published_one_too(small, tmp_path, study_task):
    """The second task of the folder: 27 blocks instead of 9, its own checkpoint, the same data."""
    state = {f"module.{name}": value for name, value in sys.modules["resnet"].ResNet(9).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resnet56-4bfd9763.th")
    task = study_task("cifar10_resnet20", "resnet56.py")

    assert task.name == "cifar10_resnet56"
    assert sum(parameter.numel() for parameter in task.build_model().parameters()) == 853_018
    assert len(task.locked_test) == len(small.locked_test)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "weights", "right"), [
    ("task.py", "resnet20-12fca82f.th", 9173),
    ("resnet56.py", "resnet56-4bfd9763.th", 9339),
])  # fmt: skip
def test_the_baseline_is_right_on_as_many_official_test_images_as_published(need_data, study_task, file, weights, right):
    """91.73% and 93.39%; validation and locked test together are the official test images."""
    need_data(
        "cifar-10-batches-bin/test_batch.bin",
        "cifar-10-batches-bin/data_batch_1.bin",
        f"weights_cifar10_resnet/{weights}",
    )
    task = study_task("cifar10_resnet20", file)
    model, kind = task.build_model(), task.metric_kind
    found = 0
    with torch.inference_mode():
        for dataset in (task.validation_data, task.locked_test.open(issue_finalization_key("a test"))):
            assert len(dataset) == 5000
            for inputs, targets in task.loader(dataset, 250):
                found += int(kind.scores(call(model, inputs), targets).sum())

    assert found == right
    assert check_task(task.path) == []
