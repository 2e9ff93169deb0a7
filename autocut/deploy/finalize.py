"""Finalization: from a measured recipe to a verified bundle. The only step of a search that reads the locked test split.

The point is exported, its accuracy taken on examples that the search never saw, its latency timed again with more samples, and
the written bundle is verified in a fresh process without the user's code. A bundle that does not give what it claims is
removed, and its point is off the front.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from autocut.deploy.bundle import Claims, write_bundle
from autocut.deploy.examples import ExampleBatch, collect_examples, write_examples
from autocut.deploy.fresh_process import FreshProcess
from autocut.deploy.manifest import Economics
from autocut.deploy.verify import TIMEOUT_S, Verification, verify_bundle
from autocut.errors import DeadlineError
from autocut.measure.accuracy import Scores, score_model, to_accuracy
from autocut.measure.energy import measure_energy
from autocut.measure.machine import describe_machine
from autocut.measurement import Cost, Measurement
from autocut.pipeline.pipeline import Pipeline
from autocut.price import Price, break_even_predictions
from autocut.recipe import Recipe
from autocut.score import values_of
from autocut.stages import lowering
from autocut.task.finalization_key import issue_finalization_key

_MOST_SAMPLES, _FEWEST_SAMPLES = 200, 64
_TIMING_S = 2.5
"""Seconds of the untouched model's calls in a final timing; a slow model gets fewer samples, but enough for its p90."""
_MAX_TEST_BYTES = 256 * 2**20
"""Larger test splits are not handed to the verifying process; it then compares on the bundle's own examples."""


@dataclass(frozen=True)
class Order:
    """What a bundle must say beside its model.

    `reference` is the untouched model's cost, `search_seconds` the search's whole time. `deadline` is a reading of
    `time.time()`; a verification that is not through by then is stopped.
    """

    to: Path
    trial: int
    price: Price
    reference: Cost
    search_seconds: float
    command: str
    deadline: float = math.inf


@dataclass(frozen=True)
class Finalized:
    """A written bundle, or the reason why it was refused (then the folder is gone)."""

    folder: Path
    digest: str
    measurement: Measurement
    refusal: str | None


def finalize(pipeline: Pipeline, recipe: Recipe, order: Order) -> Finalized:
    """Export `recipe` to `order.to`, measure it on the test split, and verify the bundle in a fresh process.

    Raises:
        TrialError: it cannot be exported any more, or its time is up.
    """
    with FreshProcess(pipeline.threads) as fresh:
        return _finalize(pipeline, recipe, order, fresh)


def _finalize(pipeline: Pipeline, recipe: Recipe, order: Order, fresh: FreshProcess) -> Finalized:
    task = pipeline.task
    dtype, mode = recipe.lowering
    draft = order.to.with_name(f".{order.to.name}.unverified")
    prefix = pipeline.prefix(recipe)
    artifact = pipeline.artifact(prefix, dtype, mode)
    test = task.locked_test.open(issue_finalization_key("finalization"))
    with pipeline.working():
        fresh.start()  # it imports while others may work, and not where it verifies, alone on this machine
        predict = lowering.load(artifact.folder, mode, pipeline.threads)
        scores = score_model(predict, task.loader(test, task.batch_size), task.metric_kind)
        fresh.wait_until_ready(min(TIMEOUT_S, order.deadline - time.time()))
    baseline = _baseline_scores(pipeline)
    with pipeline.working():
        accuracy = to_accuracy("test", scores, task.metric_kind, baseline)
    cost = pipeline.time_artifact(artifact.folder, mode, samples=_samples(order.reference))
    largest = cost.latencies[-1]
    inputs = pipeline.serving_inputs(largest.batch_size)
    with pipeline.alone():
        energy = measure_energy(lambda: predict(inputs), largest.batch_size, cost)
    measurement = Measurement(accuracy, cost, None, energy.energy_j_per_prediction, energy.energy_source)
    with pipeline.working():
        shutil.rmtree(draft, ignore_errors=True)  # left by a killed search: written, but never verified
        claims = _claims(pipeline, recipe, (*prefix.lineage, artifact.key), measurement, prefix.train_seconds, order)
        batches = task.loader(test, task.batch_size)
        manifest = write_bundle(artifact.folder, draft, claims, collect_examples(predict, batches))
        whole = collect_examples(predict, batches, max_examples=None, max_bytes=_MAX_TEST_BYTES)
    verification = _verify(pipeline, draft, order.deadline, whole if sum(map(len, whole)) == len(task.locked_test) else (), fresh)
    findings = verification.findings
    first_start_ms = cost.cold_start_ms if findings.cold_start_ms is None else findings.cold_start_ms
    found = replace(measurement, peak_memory_bytes=findings.peak_memory_bytes, cost=replace(cost, cold_start_ms=first_start_ms))
    if verification.ok:
        shutil.rmtree(order.to, ignore_errors=True)
        draft.rename(order.to)
        return Finalized(order.to, manifest.digest, found, None)
    shutil.rmtree(draft, ignore_errors=True)
    return Finalized(order.to, manifest.digest, found, "; ".join(check.message for check in verification.failed))


def _samples(reference: Cost) -> int:
    seconds_each = sum(latency.p50_ms.value for latency in reference.latencies) / 1e3
    return max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, int(_TIMING_S / seconds_each)))


def measure_untouched(pipeline: Pipeline) -> Measurement:
    """Measure the untouched model on the test split, as the user runs it: everything is compared with it."""
    scores = _baseline_scores(pipeline)
    with pipeline.working():
        accuracy = to_accuracy("test", scores, pipeline.task.metric_kind, scores)
    return Measurement(accuracy, pipeline.cost(pipeline.baseline, "fp32", "eager"))


def _baseline_scores(pipeline: Pipeline) -> Scores:
    """Scores of the untouched model on the test split, computed once a study."""
    task = pipeline.task
    with pipeline.working():
        settings = {"numerics": "untouched", "split": "test", "examples": task.locked_test.fingerprint}
    key = pipeline.key(pipeline.baseline.key, "accuracy", settings)

    def make(folder: Path) -> None:
        test = task.locked_test.open(issue_finalization_key("finalization of the untouched model"))
        with pipeline.working():
            scores = score_model(pipeline.baseline_predict, task.loader(test, task.batch_size), task.metric_kind)
        np.savez(folder / "scores.npz", scores=scores.scores, targets=scores.targets)

    entry = pipeline.stage(key, "accuracy", "untouched/test", make, "measuring")
    with np.load(entry.folder / "scores.npz", allow_pickle=False) as saved:
        return Scores(saved["scores"], saved["targets"])


def _verify(
    pipeline: Pipeline, folder: Path, deadline: float, whole: tuple[ExampleBatch, ...], fresh: FreshProcess
) -> Verification:
    with tempfile.TemporaryDirectory(prefix="autocut-test-") as scratch:
        examples = None
        if whole:
            examples = Path(scratch) / "test.npz"
            with pipeline.working():
                write_examples(examples, whole)
        with pipeline.alone():
            left_s = deadline - time.time()
            timeout_s = max(0.1, min(TIMEOUT_S, left_s))
            verification = verify_bundle(folder, examples=examples, process=fresh, timeout_s=timeout_s)
    if time.time() >= deadline:
        raise DeadlineError("the time of the search was up before the bundle was verified")
    return verification


def _claims(
    pipeline: Pipeline, recipe: Recipe, lineage: tuple[str, ...], measurement: Measurement, train_seconds: float, order: Order
) -> Claims:
    task = pipeline.task
    values = values_of(measurement, order.reference, order.price, train_seconds)
    untouched = values["usd_per_million"] * values["speedup"]
    search_usd = order.price.usd_per_hour * order.search_seconds / 3600
    return Claims(
        task=task.name,
        recipe=recipe,
        measurement=measurement,
        values=values,
        kind=task.kind if task.metric is None and task.summarize is None else None,
        metric=task.metric_kind.name,
        command=order.command,
        seed=pipeline.seed,
        trial=order.trial,
        lineage=lineage,
        economics=Economics(
            instance=order.price.instance,
            price_per_hour=order.price.usd_per_hour,
            price_date=order.price.date,
            utilization=order.price.utilization,
            usd_per_million=values["usd_per_million"],
            baseline_usd_per_million=untouched,
            search_usd=search_usd,
            break_even_predictions=break_even_predictions(search_usd, untouched, values["usd_per_million"]),
        ),
        machine_details=asdict(describe_machine()),
    )
