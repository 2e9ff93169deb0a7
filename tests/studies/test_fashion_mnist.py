"""The Fashion-MNIST study."""

from __future__ import annotations

import gzip
import struct
import sys

import pytest
import torch

from autocut.errors import TaskError
from autocut.task.check import check_task, faults_of
from autocut.task.finalization_key import issue_finalization_key

FILES = [
    f"fashion_mnist/{name}-ubyte.gz" for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
]


def write_idx(path, values):
    """Write a tensor of bytes as gzipped idx."""
    header = bytes([0, 0, 8, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.numpy().tobytes()))


def write_small(folder, train=5200, test=60):
    """Write the four files with random images; `folder` then serves as AUTOCUT_DATA."""
    generator = torch.Generator().manual_seed(0)
    for file, count in zip(FILES, (train, train, test, test), strict=True):
        shape, top = ((count, 28, 28), 256) if "images" in file else ((count,), 10)
        write_idx(folder / file.partition("/")[2], torch.randint(0, top, shape, generator=generator, dtype=torch.uint8))


def test_the_task_reads_idx_files_and_has_no_faults(tmp_path, monkeypatch, study_task):
    """5,000 of train are validation; the official test is locked; at most 100k parameters."""
    write_small(tmp_path)
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    task = study_task("fashion_mnist")

    assert (len(task.train_data), len(task.validation_data), len(task.locked_test)) == (200, 5000, 60)
    assert sum(parameter.numel() for parameter in task.build_model().parameters()) <= 100_000
    assert faults_of(task) == []


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"), gzip.compress(b"\0\0\x0d\x01")],
    # Named, because a gzip header holds the second it was made in: no two pytest processes would call it alike.
    ids=["no gzip", "three of five bytes", "values are floats"],
)
def test_a_damaged_file_is_told_with_its_path(tmp_path, content, study_task):
    """Never a traceback from struct or gzip."""
    study_task("fashion_mnist")
    (tmp_path / "x-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(TaskError, match=r"x-idx1-ubyte\.gz must be"):
        sys.modules["data"].read_idx(tmp_path / "x-idx1-ubyte.gz")


@pytest.mark.slow
def test_the_official_files_have_their_known_mean(need_data, study_task):
    """60,000 + 10,000 images, all classes equally often in test, mean 0.2860 and deviation 0.3530."""
    need_data(*FILES)
    task = study_task("fashion_mnist")
    pixels = torch.cat([part.pixels for part in (task.train_data, task.validation_data)]).float() / 255
    test = task.locked_test.open(issue_finalization_key("a test"))

    assert (len(pixels), len(test)) == (60_000, 10_000)
    assert (round(pixels.mean().item(), 4), round(pixels.std().item(), 4)) == (0.2860, 0.3530)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert check_task(task.path) == []
