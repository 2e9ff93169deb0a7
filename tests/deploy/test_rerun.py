"""A bundle is run once more, alone or by turns with another model, in a process that is fresh."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autocut.deploy.examples import read_examples, write_examples
from autocut.deploy.manifest import EXAMPLES, MODEL_FOLDER, hash_files, read_manifest
from autocut.deploy.rerun import rerun
from autocut.deploy.rerun_process import run
from autocut.errors import VerificationError


@pytest.fixture
def other(made, tmp_path, claim):
    """A copy of the bundle with other examples: the second half, and one that is new."""
    folder = Path(shutil.copytree(made, tmp_path / "other"))
    last = read_examples(folder / EXAMPLES)[-1]
    new = replace(last, inputs=last.inputs + 1.0)
    write_examples(folder / EXAMPLES, [last, new])
    claim.rewrite(folder, files=hash_files(folder))
    return folder


def test_a_fresh_process_gives_every_number(made):
    """With one thread more than the claim."""
    found = rerun(made, 2)

    assert found.failure is None
    assert [latency.batch_size for latency in found.side.latencies] == [1, 16]
    assert found.side.cold_start_ms > 0
    assert found.side.size_bytes == read_manifest(made).measurement.cost.size_bytes
    assert found.machine == read_manifest(made).measurement.cost.machine
    assert (found.other, found.shared) == (None, None)


def test_the_accuracy_is_that_of_the_bundles_own_examples(made):
    """The claim, with an interval and under a name of its own: these are no whole split."""
    side = run(made, 1).side

    assert side.accuracy.split == "examples"
    assert side.accuracy.examples == 48
    assert side.accuracy.metric.value == read_manifest(made).verification.accuracy
    assert side.accuracy.metric.low < side.accuracy.metric.value < side.accuracy.metric.high
    assert not side.answers_differ


def test_without_another_model_there_is_no_speed_up(made):
    """It is 1 by definition, without spread."""
    assert {latency.speedup.value for latency in run(made, 1).side.latencies} == {1.0}


def test_the_untouched_model_takes_turns(made):
    """Its artifact is that of an eager bundle, so the speed-up is measured, and has a spread."""
    speedups = [latency.speedup for latency in run(made, 1, untouched=made / MODEL_FOLDER).side.latencies]

    assert all(speedup.low < speedup.value < speedup.high for speedup in speedups)


def test_examples_that_both_carry_are_compared_in_pairs(made, other):
    """Sixteen of 48 are in both bundles; the same model gives them the same answers."""
    found = run(made, 1, other=other)
    before, after = found.shared

    assert (before.examples, after.examples) == (16, 16)
    assert (before.metric, after.difference.value, after.p_value) == (after.metric, 0.0, 1.0)
    assert found.other.cold_start_ms is None


def test_bundles_without_a_common_example_are_not_paired(made, other, claim):
    """Accuracies of different data say nothing about each other."""
    examples = [replace(batch, inputs=batch.inputs - 1.0) for batch in read_examples(other / EXAMPLES)]
    write_examples(other / EXAMPLES, examples)
    claim.rewrite(other, files=hash_files(other))

    assert run(made, 1, other=other).shared is None


def test_a_bundle_that_answers_otherwise_is_told(bundle, claim):
    """Its weights were changed, and its hashes renewed: only the answers show it."""
    examples = [replace(batch, outputs=np.roll(batch.outputs, 1)) for batch in read_examples(bundle / EXAMPLES)]
    write_examples(bundle / EXAMPLES, examples)
    claim.rewrite(bundle, files=hash_files(bundle))

    assert run(bundle, 1).side.answers_differ


def test_threads_are_those_that_were_asked_for(made, monkeypatch):
    """Torch's pool has them before the model is loaded."""
    monkeypatch.setattr("autocut.deploy.rerun_process.answer", lambda respond, _: respond({
        "bundle": str(made), "threads": 3, "untouched": None, "other": None, "report": "",
    }, lambda: None))  # fmt: skip
    from autocut.deploy.rerun_process import main

    try:
        main([])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_the_reason_comes_back_from_the_fresh_process(bundle):
    """A changed byte is refused before a runtime reads it."""
    (bundle / EXAMPLES).write_bytes((bundle / EXAMPLES).read_bytes() + b"0")

    with pytest.raises(VerificationError):
        run(bundle, 1)
    assert "must have SHA-256" in rerun(bundle, 1).failure
