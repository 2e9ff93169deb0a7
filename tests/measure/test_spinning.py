"""No thread spins on after its model's call: what is timed next would share its core."""

from pathlib import Path

import onnxruntime
import pytest
import torch

from autocut.deploy.fresh_process import clean_environment
from autocut.execution.worker_pool import _prepare_environment
from autocut.measure import spinning
from autocut.stages.compile import ExampleCall
from autocut.stages.compile import onnxruntime as module
from autocut.stages.graph import Signature


def test_every_process_that_times_starts_with_short_spins(monkeypatch):
    """OpenMP reads them when it starts. A person's own setting stays in a search; verification takes none from outside."""
    for name in spinning.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KMP_BLOCKTIME", "7")
    environment = {"KMP_BLOCKTIME": "7"}
    monkeypatch.setattr("autocut.execution.worker_pool.os.environ", environment)
    _prepare_environment(2)
    assert environment["GOMP_SPINCOUNT"] == spinning.ENVIRONMENT["GOMP_SPINCOUNT"]
    assert environment["KMP_BLOCKTIME"] == "7"
    assert spinning.ENVIRONMENT.items() <= clean_environment(2).items()


def test_onnxruntime_stops_spinning_at_the_end_of_a_call(monkeypatch, tmp_path):
    """Its threads would hold a core for another 45 ms (1.32)."""
    seen = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: seen.append(options))
    module.load_onnxruntime(tmp_path, Signature.of(torch.zeros(1, 2)), 2)
    assert seen[0].get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize("threads", [1, 2])
def test_the_readme_of_a_bundle_shows_the_session_as_it_was_timed(threads):
    """One thread has no pool that could spin."""
    lines = module._run_lines(ExampleCall(Path(), ("model.onnx",), ("x",), ("x",), threads))
    assert ("force_spinning_stop" in lines) == (threads > 1)
    compile(lines, "README", "exec")
