"""The pages, and a folder to follow them in."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest


def _load(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reading():
    """The module `blocks` beside this file."""
    return _load("docs_blocks", Path(__file__).with_name("blocks.py"))


@pytest.fixture
def scratch(finished_study, small_task_file):
    """A folder with the study studies/digits and a task.py, in which `blocks` may write."""
    shutil.copytree(finished_study, small_task_file.parent / "studies/digits")
    return small_task_file.parent
