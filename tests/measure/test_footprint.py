"""Bytes on disk and in memory."""

import io
import mmap
import zipfile

import numpy as np
import pytest

from autocut.measure import footprint
from autocut.measure.footprint import compressed_size_bytes, forget_peak, peak_resident_bytes, resident_bytes, size_bytes


def test_size_counts_every_file_below(tmp_path):
    """OpenVINO's model is two files, AOTInductor's a tree."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.bin").write_bytes(b"x" * 1000)
    (tmp_path / "inner" / "b.bin").write_bytes(b"y" * 500)
    assert size_bytes(tmp_path) == 1500


def test_compressed_size_is_that_of_a_zip_archive(tmp_path):
    """Oracle: Python's own zip writer at the same level. Half the weights being zero shows here and nowhere else."""
    weights = np.random.default_rng(0).normal(size=600_000).astype(np.float32)
    weights[::2] = 0
    (tmp_path / "model.bin").write_bytes(weights.tobytes())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as written:
        written.write(tmp_path / "model.bin")
        (member,) = written.infolist()
    size, compressed = size_bytes(tmp_path), compressed_size_bytes(tmp_path)
    assert (size, compressed) == (member.file_size, member.compress_size)
    assert compressed < 0.7 * size


def test_an_empty_folder_takes_nothing(tmp_path):
    """No file, no size."""
    assert (size_bytes(tmp_path), compressed_size_bytes(tmp_path)) == (0, 0)


@pytest.mark.parametrize("kind", ["float32", "half pruned", "int8", "layers"])
def test_the_compressed_size_of_a_large_file_is_estimated_from_blocks(tmp_path, monkeypatch, kind):
    """Compressing 440 MB takes 14 seconds. Oracle: the exact number of the same file, whose layers compress differently."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=1_000_000).astype(np.float32)
    pruned = np.where(rng.random(weights.size) < 0.5, weights, 0).astype(np.float32)
    integers = np.clip(rng.normal(size=4_000_000) * 30, -127, 127).astype(np.int8)
    parts = {"float32": [weights], "half pruned": [pruned], "int8": [integers], "layers": [weights, pruned, integers] * 2}[kind]
    (tmp_path / "model.bin").write_bytes(b"".join(part.tobytes() for part in parts))
    exact = compressed_size_bytes(tmp_path)
    monkeypatch.setattr(footprint, "_LARGE_BYTES", 1)
    monkeypatch.setattr(footprint, "_BLOCKS", 48)
    assert compressed_size_bytes(tmp_path) == pytest.approx(exact, rel=0.02)


def test_the_peak_shows_memory_that_is_freed_again():
    """A model may take 64 MB while it answers, and give them back."""
    forget_peak()
    before = resident_bytes()
    with mmap.mmap(-1, 64_000_000) as pages:  # not from a heap that an earlier timing made large
        pages.write(bytes(64_000_000))
    assert peak_resident_bytes() - before > 60e6
