"""Bytes on disk and in memory."""

import io
import zipfile

import numpy as np

from autocut.measure.footprint import forget_peak, peak_resident_bytes, resident_bytes, size_of


def test_size_counts_every_file_below(tmp_path):
    """OpenVINO's model is two files, AOTInductor's a tree."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.bin").write_bytes(b"x" * 1000)
    (tmp_path / "inner" / "b.bin").write_bytes(b"y" * 500)
    assert size_of(tmp_path)[0] == 1500


def test_compressed_size_is_that_of_a_zip_archive(tmp_path):
    """Oracle: Python's own zip writer at the same level. Half the weights being zero shows here and nowhere else."""
    weights = np.random.default_rng(0).normal(size=600_000).astype(np.float32)
    weights[::2] = 0
    (tmp_path / "model.bin").write_bytes(weights.tobytes())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as written:
        written.write(tmp_path / "model.bin")
        (member,) = written.infolist()
    size, compressed = size_of(tmp_path)
    assert (size, compressed) == (member.file_size, member.compress_size)
    assert compressed < 0.7 * size


def test_an_empty_folder_takes_nothing(tmp_path):
    """No file, no size."""
    assert size_of(tmp_path) == (0, 0)


def test_the_peak_shows_memory_that_is_freed_again():
    """A model may take 64 MB while it answers, and give them back."""
    forget_peak()
    before = resident_bytes()
    np.ones(8_000_000).sum()
    assert peak_resident_bytes() - before > 60e6
