"""Where the studies' data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study_task(monkeypatch):
    """Load the task of a study, anew for each test, because tests name different data."""
    from autocut.task.loading import load_task

    monkeypatch.setattr("autocut.task.loading._loaded", {})
    return lambda name, file="task.py": load_task(ROOT / "studies" / name / file)


@pytest.fixture
def need_data(monkeypatch):
    """Make real files known through AUTOCUT_DATA, or skip where they are not there."""

    def need(*files):
        named = os.environ.get("AUTOCUT_DATA")
        folder = Path(named) if named else ROOT.parent / "shared" / "data"
        for file in files:
            if not any((place / Path(file).name).is_file() for place in (folder, folder / Path(file).parent)):
                pytest.skip(f"{file} is not in {folder}; name a directory that has it: AUTOCUT_DATA=...")
        monkeypatch.setenv("AUTOCUT_DATA", str(folder))
        return folder

    return need
