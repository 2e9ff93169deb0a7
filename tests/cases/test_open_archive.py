"""A dataset that keeps an archive open is read by several workers, each through a handle of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from autocut.execution.server_process import _environment

TASK = """
from pathlib import Path
import numpy as np
import torch
from torch import nn
from autocut import Task

FILE = Path(__file__).with_name("scans.npz")
if not FILE.exists():
    rows = np.random.default_rng(0).random((120, 4), dtype=np.float32)
    np.savez_compressed(FILE, **{f"scan{number}": row for number, row in enumerate(rows)})

class Scans(torch.utils.data.Dataset):
    def __init__(self, first):
        self.first = first
        self.archive = np.load(FILE)

    def __len__(self):
        return 60

    def __getitem__(self, index):
        scan = self.archive[f"scan{self.first + index}"]
        return scan, int(scan.argmax())

task = Task(name="scans", model=lambda: nn.Linear(4, 4), train=Scans(0), test=Scans(60))
"""
SERVER = """
import os, sys
from autocut.execution import preparation
preparation._WORKER, preparation._EXPORTER, preparation._late_imports = "autocut.errors", "autocut.errors", tuple
done = list(preparation.prepare_for_later(sys.argv[1]))
jobs = []
for number in range(2):
    if (job := os.fork()) == 0:
        from autocut.task.loading import load_task
        task = load_task(sys.argv[1])
        for _ in range(5):
            for inputs, targets in task.loader(task.train_data, 7):
                assert (inputs.argmax(1) == targets).all()
        os.write(1, f"{task.fingerprint} {'data' in done}\\n".encode())
        os._exit(0)
    jobs.append(job)
sys.exit(sum(os.waitpid(job, 0)[1] != 0 for job in jobs))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_forked_workers_share_no_handle_of_an_archive(tmp_path):
    """The process that they are forked from leaves such a task to them: a shared handle gives damaged or wrong examples."""
    (tmp_path / "task.py").write_text(TASK)
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(tmp_path / "task.py")],
        capture_output=True, text=True, env={**os.environ, **_environment()}, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert first.endswith("False")
