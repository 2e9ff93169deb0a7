"""`autocut search --serve-on`, what the front says of it, and the lowerings for GPUs in `autocut methods`."""

from __future__ import annotations

import json

import pytest

from autocut import cli
from autocut.execution.training_device import FoundGpu
from tests.fakes import FakeStudy


def test_a_gpu_that_is_not_there_is_told_before_anything_starts(searches, room, monkeypatch, capsys):
    """With `gpu` as the space that is meant."""
    monkeypatch.setattr("autocut.execution.training_device.find_gpu", lambda: FoundGpu(reason="no driver"))
    room("autocut.execution.worker_pool", WorkerPool=lambda *_, **__: pytest.fail("something was started"))
    assert cli.main(["search", "--budget", "8h", "--serve-on", "cuda"]) == 2
    assert "--serve-on cuda must find a GPU that torch can use, got none: no driver" in capsys.readouterr().err


def test_one_worker_and_the_space_for_gpus_are_the_defaults_there(searches, monkeypatch, capsys):
    """A space that is named stays."""
    monkeypatch.setattr("autocut.execution.training_device.find_gpu", lambda: FoundGpu(name="NVIDIA L4"))
    words = ["search", "--budget", "1m", "--serve-on", "cuda", "--price-per-hour", "4"]
    assert cli.main(words) == 0
    assert (searches[0][0].serve_on, searches[0][0].space, searches[0][0].workers) == ("cuda", "gpu", 1)
    assert "serving: on NVIDIA L4 (cuda)" in capsys.readouterr().err
    assert cli.main([*words, "--space", "quick"]) == 0
    assert searches[1][0].space == "quick"


def test_a_space_for_gpus_needs_one(searches, capsys):
    """The hint has the flag."""
    assert cli.main(["search", "--budget", "1m", "--space", "gpu"]) == 2
    assert "--space must be for the CPU, which serves, got gpu for cuda" in (told := capsys.readouterr().err)
    assert "--serve-on cuda" in told


def test_front_says_what_served_its_models(searches, monkeypatch, capsys):
    """A study of an earlier autocut had no choice."""
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["served_on"] == "cpu"
    monkeypatch.setattr(FakeStudy, "facts", {**FakeStudy.facts, "serve_on": "cuda"})
    assert cli.main(["front", "studies/digits"]) == 0
    assert "models were trained on the CPU; cuda scored and timed them" in capsys.readouterr().err
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["served_on"] == "cuda"
