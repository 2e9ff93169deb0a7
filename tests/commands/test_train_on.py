"""`autocut search --train-on`, and what the front says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autocut import cli
from autocut.execution.preflight import Preflight, TaskFacts
from autocut.execution.training_device import FoundGpu
from autocut.execution.tried_devices import AskedTraining
from autocut.precision import TrainingWay
from tests.fakes import KNOWN, FakeStudy


def test_a_gpu_that_is_not_there_is_told_before_anything_starts(searches, room, monkeypatch, capsys):
    """In a dry run too."""
    monkeypatch.setattr("autocut.execution.training_device.find_gpu", lambda: FoundGpu(reason="no driver"))
    room("autocut.execution.worker_pool", WorkerPool=lambda *_, **__: pytest.fail("something was started"))
    assert cli.main(["search", "--budget", "8h", "--train-on", "cuda"]) == 2
    assert "--train-on cuda must find a GPU that torch can use, got none: no driver" in capsys.readouterr().err
    assert cli.main(["search", "--budget", "8h", "--train-on", "cuda", "--dry-run"]) == 2
    assert "got none: no driver" in capsys.readouterr().err


def test_the_device_that_trains_comes_from_flag_or_file(searches, monkeypatch, capsys):
    """The search gets what was found, and the user reads it first."""
    monkeypatch.setattr("autocut.execution.training_device.find_gpu", lambda: FoundGpu(name="NVIDIA L4"))
    Path("autocut.toml").write_text('[search]\nbudget = "1m"\ntrain-on = "auto"\n')
    assert cli.main(["search"]) == 0
    assert searches[0][0].train_on == "cuda"
    assert "training: on NVIDIA L4 (cuda)" in capsys.readouterr().err
    assert cli.main(["search", "--train-on", "cpu"]) == 0
    assert searches[1][0].train_on == "cpu"


def test_a_gpu_without_anything_to_train_is_refused(searches, monkeypatch, capsys):
    """The knob would change nothing."""
    monkeypatch.setattr("autocut.execution.training_device.find_gpu", lambda: FoundGpu(name="NVIDIA L4"))
    weights = TaskFacts("digits", "fingerprint", train_samples=1000, epochs=10, is_pretrained=True)
    monkeypatch.setattr("autocut.execution.preflight.preflight", lambda *_, **__: Preflight(KNOWN, {}, weights))
    assert cli.main(["search", "--budget", "1m", "--space", "deploy-only", "--train-on", "cuda"]) == 2
    assert "--train-on cuda must have a model to train, got none" in capsys.readouterr().err
    assert cli.main(["search", "--budget", "1m", "--space", "deploy-only", "--train-on", "auto"]) == 0


def test_a_precision_without_anything_to_train_is_refused(searches, monkeypatch, capsys):
    """The knob would change nothing there; elsewhere it reaches the search, from the configuration file too."""
    Path("autocut.toml").write_text('[search]\nbudget = "1m"\ntrain-precision = "bf16"\n')
    assert cli.main(["search"]) == 0
    assert searches[0][0].train_precision == "bf16"
    weights = TaskFacts("digits", "fingerprint", train_samples=1000, epochs=10, is_pretrained=True)
    monkeypatch.setattr("autocut.execution.preflight.preflight", lambda *_, **__: Preflight(KNOWN, {}, weights))
    assert cli.main(["search", "--space", "deploy-only"]) == 2
    assert "--train-precision bf16 must have a model to train, got none" in capsys.readouterr().err


def test_the_way_of_training_that_was_found_faster_is_told(searches, monkeypatch, capsys):
    """With the flag that leaves out what rounds."""
    facts = TaskFacts("digits", "fingerprint", train_samples=1000, epochs=10, is_pretrained=False)
    asked = []

    def preflight(*_, training, **__):
        asked.append(training)
        return Preflight(KNOWN, {}, facts, training=TrainingWay("bf16", "channels_last", 2.64, 0.01))

    monkeypatch.setattr("autocut.execution.preflight.preflight", preflight)
    assert cli.main(["search", "--budget", "1m"]) == 0
    assert asked == [AskedTraining("cpu", "auto", most_s=3.0)]
    note = "training: in bf16, channels last, 2.6 times as fast here as without (--train-precision fp32 leaves it out)"
    assert note in " ".join(capsys.readouterr().err.split())


def test_front_says_what_trained_its_models(searches, monkeypatch, capsys):
    """A study of an earlier autocut had no choice."""
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trained_on"] == "cpu"
    monkeypatch.setattr(FakeStudy, "facts", {**FakeStudy.facts, "train_on": "cuda"})
    assert cli.main(["front", "studies/digits"]) == 0
    assert "models were trained on cuda; the CPU scored and timed them" in capsys.readouterr().err
    monkeypatch.setattr(FakeStudy, "facts", {**FakeStudy.facts, "train_precision": "bf16"})
    assert cli.main(["front", "studies/digits"]) == 0
    assert "models were trained in mixed precision (bf16)" in capsys.readouterr().err
