"""One pass over the test split gives the scores, the bundle's examples and the verifier's replay. The replay has a bound."""

import contextlib
import textwrap
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from autocut.deploy import finalize as finalize_module
from autocut.deploy import verify as verify_module
from autocut.deploy.examples import ExampleBatch, ExampleCollector, read_examples, write_examples
from autocut.deploy.finalize import FinalizationRequest, ReplaySample, choose_sample, finalize
from autocut.deploy.manifest import hash_files, read_manifest
from autocut.deploy.synthetic import synthetic_examples
from autocut.deploy.verify import verify_bundle
from autocut.errors import BundleError, InfeasibleRecipeError
from autocut.measure.quiet import QuietLock
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.search.jobs import TEST_SCORING, ScoringPlan, StageStarted
from autocut.task.loading import load_task

LANGUAGE_TASK = """
    import torch
    from torch import nn
    from autocut import Task

    tokens = torch.randint(0, 500, (120, 33), generator=torch.Generator().manual_seed(0))


    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.head = nn.Embedding(500, 16), nn.Linear(16, 500)

        def forward(self, ids):
            return self.head(self.embed(ids))


    def rows(first, last):
        return tokens[first:last, :-1], tokens[first:last, 1:]


    task = Task(
        name="words", model=Model, train=rows(0, 40), validation=rows(40, 80), test=rows(80, 120), kind="language_modeling",
        batch_size=8, epochs=1, serving_batch_sizes=(1, 4), pretrained=True,
    )
"""


@pytest.fixture
def finalized(tmp_path, monkeypatch):
    """Finalize a recipe of a task: `finalized(file)`. Time has tests of its own, so here a busy machine must not matter."""
    monkeypatch.setattr(finalize_module, "verify_bundle", partial(verify_bundle, latency_tolerance=0.9))

    def run(file, dtype="fp32", mode="torch.export", scoring=None, report=lambda event: None, **request):
        context = StageContext(load_task(file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"), scoring=scoring)
        pipeline = Pipeline(context, report)
        recipe = Recipe({"quantize.dtype": dtype, "compile.mode": mode})
        price = Price("a machine", 0.1, "2026-01-01", 0.5)
        reference = pipeline.cost(pipeline.baseline, "fp32", "eager")
        to = tmp_path / "bundle"
        asked = FinalizationRequest(to, 1, price, reference, 1.0, "autocut search", **{"spent_s": 1.0, **request})
        return finalize(pipeline, recipe, asked)

    return run


@pytest.fixture
def language_task_file(tmp_path):
    """A tiny language model; one example's outputs take 64 kB."""
    path = tmp_path / "words.py"
    path.write_text(textwrap.dedent(LANGUAGE_TASK))
    return path


@pytest.fixture
def verifications(monkeypatch):
    """The verifications of `finalize`, in their order."""
    done = []

    def remember(*arguments, **options):
        done.append(judge(*arguments, **options))
        return done[-1]

    judge = verify_module.judge
    monkeypatch.setattr(verify_module, "judge", remember)
    return done


def message(checks, name):
    """Message of the check called `name`."""
    return next(check.message for check in checks if check.name == name)


def test_a_fast_model_replays_the_whole_split(finalized, small_task_file, verifications):
    """300 examples, of which the bundle keeps 256. The manifest has no field that an older version does not know."""
    done = finalized(small_task_file, mode="eager", spent_s=1800.0)

    assert done.refusal is None
    manifest = read_manifest(done.folder)
    # Of the time that was spent, not of the budget.
    assert manifest.economics.search_usd == pytest.approx(manifest.economics.price_per_hour / 2)
    assert set(manifest.content["verification"]) == {"examples", "kind", "accuracy"}
    assert manifest.economics.bill.break_even_predictions == manifest.economics.break_even_predictions
    assert manifest.economics.co2_g_per_million > 0
    assert manifest.verification.examples == 256
    assert message(verifications[0], "accuracy on test").endswith("300 examples)")
    assert message(verifications[0], "accuracy on examples").endswith("256 examples)")


def test_a_look_at_the_test_split_is_told_before_the_bundle_is_written(finalized, small_task_file, monkeypatch):
    """So that it counts where a full disk or a failed verification leaves no bundle."""
    events = []

    def refuse(*arguments):
        raise BundleError("bundle must be writable, got: no space left", "make room there")

    monkeypatch.setattr(finalize_module, "write_bundle", refuse)
    with pytest.raises(BundleError):
        finalized(small_task_file, mode="eager", report=events.append)

    assert [event.stage for event in events if isinstance(event, StageStarted)].count(TEST_SCORING) == 1


def test_a_slow_model_replays_a_sample(finalized, small_task_file, verifications, monkeypatch):
    """Whole batches of the split's first examples, at least as many as the bundle keeps; the manifest says how many."""
    monkeypatch.setattr(finalize_module, "_REPLAY_S", 1e-9)

    done = finalized(small_task_file, mode="eager")

    assert done.refusal is None
    claim = read_manifest(done.folder).verification
    assert claim.examples == claim.test_examples == 64
    assert claim.test_accuracy == claim.accuracy
    assert message(verify_bundle(done.folder, in_fresh_process=False).checks, "accuracy on examples").endswith(
        "64 examples; at export 64 of 300 test examples were replayed)"
    )


def test_where_scoring_is_slow_the_accuracy_is_that_of_a_stated_sample(finalized, small_task_file, verifications):
    """Manifest and README say how many examples the split has. The untouched model was scored on the same sample."""
    done = finalized(small_task_file, mode="eager", scoring=ScoringPlan(100, 300, 0.1), scoring_s=1.0)

    assert done.refusal is None
    assert done.measurement.accuracy.examples == 100
    assert done.measurement.accuracy.difference.value == 0.0
    assert read_manifest(done.folder).verification.split_examples == 300
    assert "(test, 100 of 300 examples)" in (done.folder / "README.md").read_text(encoding="utf-8")
    assert message(verifications[0], "accuracy on examples").endswith("100 examples)")


@pytest.mark.parametrize(
    ("replay_s", "own", "replayed"), [(6.0, 20, 40), (5.0, 20, 30), (4.0, 20, None), (1.5, 10, None), (0.1, 10, None)]
)
def test_a_replay_is_as_long_as_its_seconds_allow(monkeypatch, replay_s, own, replayed):
    """The bundle's own examples are part of it. A sample that holds no more than those is not replayed beside them."""
    monkeypatch.setattr(finalize_module, "_REPLAY_S", replay_s)
    collector = ExampleCollector(lambda inputs: inputs, "regression", max_examples=20, replay_bytes=10**6)
    for inputs, _ in collector.watch([(torch.rand(10, 1), torch.rand(10, 1)) for _ in range(6)]):
        collector.predict(inputs)

    sample = choose_sample(collector, 60, 0.1)

    assert sum(map(len, sample.own)) == own
    assert sum(map(len, sample.replay)) == (replayed or 0)
    assert sample.test_examples == (replayed or own)
    assert sample.test_accuracy is not None


def test_a_time_of_day_that_is_set_moves_no_deadline(monkeypatch, tmp_path):
    """An hour ahead would refuse a good bundle, an hour back would let its verification run on."""
    asked = {}
    monkeypatch.setattr(finalize_module, "verify_bundle", lambda _, **options: asked.update(options))
    monkeypatch.setattr(time, "time", lambda: 5.0)
    runner = SimpleNamespace(working=contextlib.nullcontext, alone=contextlib.nullcontext)
    finalize_module._verify(runner, tmp_path, time.monotonic() + 60, (), None)

    assert 30 < asked["timeout_s"] <= 60


def test_synthetic_examples_stand_for_no_part_of_the_test_split():
    """Where its first batch is too large to be replayed, nothing is claimed of one: their targets are made up."""
    collector = ExampleCollector(lambda inputs: inputs, "regression", replay_bytes=1)
    for inputs, _ in collector.watch([(torch.rand(10, 1), torch.rand(10, 1))]):
        collector.predict(inputs)
    synthetic = synthetic_examples(lambda inputs: inputs, collector.own[0], seed=0)

    assert choose_sample(collector, 60, 0.1, synthetic) == ReplaySample(synthetic, (), None, None)


def test_a_language_model_is_finalized_with_a_part_of_its_outputs(finalized, language_task_file, monkeypatch, claim):
    """The signature and the accuracy are those of whole outputs; README and manifest say what is kept. Other values are refused."""
    monkeypatch.setattr(finalize_module, "ExampleCollector", partial(ExampleCollector, max_bytes=60_000))  # an example: 64,000
    done = finalized(language_task_file, mode="eager")
    folder = done.folder
    assert done.refusal is None
    manifest = read_manifest(folder)
    stored = read_examples(folder / "examples.npz")
    step = stored[0].step

    assert manifest.output.shape == (None, 32, 500)
    assert manifest.verification.outputs_step == step > 1
    assert manifest.verification.examples == 40
    assert manifest.verification.accuracy == pytest.approx(manifest.measurement.accuracy.metric.value)
    assert f"[:, ::{step}]" in (folder / "README.md").read_text(encoding="utf-8")
    assert verify_bundle(folder, in_fresh_process=False, latency_tolerance=0.9).findings.output_deviation == 0

    stored[-1].outputs[-1, -1] += 10 * np.abs(stored[-1].outputs).max()
    write_examples(folder / "examples.npz", stored)
    claim.rewrite(folder, files=hash_files(folder))
    failed = verify_bundle(folder, in_fresh_process=False, latency_tolerance=0.9).failed
    assert [check.name for check in failed] == ["outputs"]


@pytest.mark.parametrize("by_task", [True, False])
def test_a_task_may_keep_its_examples_to_itself(finalized, small_task_file, verifications, by_task):
    """The bundle then has synthetic inputs and no accuracy on them; the test split is replayed all the same."""
    if by_task:
        source = small_task_file.read_text()
        small_task_file.write_text(source.replace("pretrained=False", "pretrained=False, share_examples=False"))

    done = finalized(small_task_file, mode="eager", share_examples=by_task)

    assert done.refusal is None
    claim = read_manifest(done.folder).verification
    (batch,) = read_examples(done.folder / "examples.npz")
    real = {row.tobytes() for row in np.float32(load_digits().data / 16.0)}
    assert (claim.synthetic, claim.accuracy, claim.examples) == (True, None, 64)
    assert not real & {row.numpy().tobytes() for row in batch.inputs}
    assert not batch.targets.any()
    assert message(verifications[0], "accuracy on test").endswith("300 examples)")
    assert "synthetic" in message(verify_bundle(done.folder, in_fresh_process=False).checks, "accuracy on examples")
    assert "holds no real data" in (done.folder / "README.md").read_text(encoding="utf-8")


def test_synthetic_inputs_keep_dtype_shape_and_range():
    """Of every tensor, also of masks and of tokens."""
    real = {"x": torch.rand(8, 3) + 5, "ids": torch.randint(7, 90, (8, 12)), "mask": torch.ones(8, 12, dtype=torch.bool)}
    batch = ExampleBatch(real, np.arange(8), np.zeros((8, 1)))

    (made,) = synthetic_examples(lambda inputs: inputs["x"][:, :1], batch, seed=0)

    assert {name: (drawn.dtype, drawn.shape) for name, drawn in made.inputs.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in real.items()
    }
    assert all(real[name].min() <= drawn.min() and drawn.max() <= real[name].max() for name, drawn in made.inputs.items())
    assert not torch.equal(made.inputs["ids"], real["ids"])


def test_a_model_that_refuses_synthetic_inputs_ends_its_trial():
    """With the option's name in the reason."""
    batch = ExampleBatch(torch.rand(8, 3), np.arange(8), np.zeros((8, 1)))

    def refuse(inputs):
        raise ValueError("lengths must fall")

    with pytest.raises(InfeasibleRecipeError, match=r"share_examples=False.*lengths must fall"):
        synthetic_examples(refuse, batch, seed=0)
