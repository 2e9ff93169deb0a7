"""Bytes on disk, and a model in a process of its own."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch

from autocut.errors import CompilerError, DeadlineError
from autocut.measure import footprint_process
from autocut.measure.footprint import fresh_process_footprint, size_of
from autocut.stages import lowering
from autocut.task.batches import to_numpy


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
    """Whoever wrote no file has no size."""
    assert size_of(tmp_path) == (0, 0)


def test_the_fresh_process_reports_what_it_found(tmp_path, monkeypatch, capsys):
    """The same code in this process, with a model that takes 64 MB while it answers."""

    def predict(inputs):
        return torch.ones(16_000_000).sum() + inputs.sum()

    monkeypatch.setattr(footprint_process.lowering, "load", lambda folder, mode, threads: predict)
    np.savez(tmp_path / "inputs.npz", **to_numpy(torch.randn(2, 3)))
    footprint_process.main([str(tmp_path), "eager", str(tmp_path / "inputs.npz"), "1"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["cold_start_ms"] > 0
    assert report["peak_memory_bytes"] > 60e6


@pytest.mark.slow
def test_a_model_begins_in_a_process_of_its_own(tmp_path):
    """A real artifact; 16 MB of weights must show in the memory."""
    model = torch.nn.Sequential(torch.nn.Linear(2000, 2000), torch.nn.ReLU(), torch.nn.Linear(2000, 3)).eval()
    inputs = torch.randn(2, 2000)
    lowering.lower(model, "fp32", "eager", [inputs], tmp_path)
    found = fresh_process_footprint(tmp_path, "eager", inputs)
    assert found.cold_start_ms > 0
    assert 16e6 < found.peak_memory_bytes < 500e6


def test_an_artifact_that_does_not_load_is_told_with_its_reason(tmp_path, monkeypatch):
    """One line, not the traceback of another process."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2\necho 'BundleError: no model here' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("autocut.measure.footprint.sys.executable", str(python))
    with pytest.raises(CompilerError, match="must load in a fresh process, but: BundleError: no model here"):
        fresh_process_footprint(tmp_path, "eager", torch.zeros(1, 2))


def test_a_process_that_hangs_is_given_up(tmp_path):
    """Nothing waits forever."""
    with pytest.raises(DeadlineError, match=r"within 0\.01 s"):
        fresh_process_footprint(tmp_path, "eager", torch.zeros(1, 2), timeout_s=0.01)
