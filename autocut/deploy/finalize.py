"""Finalization: from a measured recipe to a verified bundle. The only step of a search that reads the locked test split.

The recipe's model is exported, scored on examples that the search never saw, and timed again with more samples. The written bundle
is verified in a fresh process without the user's code. A bundle that does not do what it claims is removed, and its point leaves
the front.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocut.bill import UNTOLD, Bill, Serving
from autocut.deploy.bundle import Claims, write_bundle
from autocut.deploy.capacity import measure_capacity, untouched_capacity
from autocut.deploy.examples import (
    ExampleBatch,
    ExampleCollector,
    claimed_metric,
    first_batches,
    number_of_examples,
    write_examples,
)
from autocut.deploy.fresh_process import FreshProcess
from autocut.deploy.manifest import economics_of
from autocut.deploy.synthetic import synthetic_examples
from autocut.deploy.verify import TIMEOUT_S, Verification, verify_bundle
from autocut.errors import DeadlineError
from autocut.measure.accuracy import Scores, score_model, to_accuracy
from autocut.measure.disturbance import claimable
from autocut.measure.energy import counts_gpu, find_meters, measure_energy
from autocut.measure.gpu_state import gpu_state
from autocut.measure.machine import describe_machine
from autocut.measure.processor import this_host
from autocut.measurement import UNTOUCHED_TEST, Accuracy, Cost, Measurement
from autocut.pipeline.measuring_stages import read_scores, scores_stage
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.scoring import SlowScoring, sample_size, sampled
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import StageContext, StageRunner
from autocut.precision import FULL
from autocut.price import Price, fit, usd_for
from autocut.recipe import UNTOUCHED, Recipe
from autocut.score import dollars_of, values_of
from autocut.search.jobs import TEST_SCORING, StageStarted
from autocut.stages import lowering
from autocut.stages.lowering import Predict
from autocut.stages.model_files import Prefix
from autocut.task.batches import Batch
from autocut.task.dimensions import sizes_of
from autocut.task.finalization_key import issue_finalization_key
from autocut.task.splits import Examples, length
from autocut.task.task import Task

_MOST_SAMPLES, _FEWEST_SAMPLES = 200, 64
_TIMING_S = 2.5
"""Seconds of the untouched model's calls in a final timing. A slower model gets fewer samples, down to those that p90 needs. Where
even these take seconds, `measure_latency` stops as soon as the interval is narrow, and p90 may stay unknown."""
_MAX_TEST_BYTES = 256 * 2**20
"""Of a larger test split, the verifying process gets the first examples."""
_REPLAY_S = 6.0
"""Seconds of the verifier's replay, by the claimed latency: it is alone on the machine. A slow model replays a sample."""
_FEWEST_EXAMPLES = 16
"""A bundle keeps this many examples, however slow its model is."""


@dataclass(frozen=True)
class FinalizationRequest:
    """Where a bundle goes, and what it says beside its model.

    `reference` is the untouched model's cost, `search_seconds` the whole time of the search. `spent_s` is what it has worked until
    now, and its price is what the search cost. `deadline` is a reading of `time.monotonic()`: a verification that still runs then
    is stopped. `share_examples` is false where the bundle must carry no real examples, whatever the task says. Where scoring is
    slow, a sample of the test split is scored, in about `scoring_s` seconds. `validation` is the accuracy by which the recipe was
    chosen.
    """

    to: Path
    trial: int
    price: Price
    reference: Cost
    search_seconds: float
    command: str
    deadline: float = math.inf
    share_examples: bool = True
    scoring_s: float = math.inf
    serving: Serving = UNTOLD
    validation: Accuracy | None = None
    spent_s: float = field(kw_only=True)


@dataclass(frozen=True)
class Finalized:
    """A written bundle, or the reason why it was refused (then the folder is gone)."""

    folder: Path
    digest: str
    measurement: Measurement
    refusal: str | None


def finalize(pipeline: Pipeline, recipe: Recipe, request: FinalizationRequest) -> Finalized:
    """Export `recipe` to `request.to`, measure it on the test split, and verify the bundle in a fresh process.

    Raises:
        TrialError: the recipe cannot be exported any more, or its time is up.
    """
    with FreshProcess(pipeline.runner.context.threads) as fresh:
        return _finalize(pipeline, recipe, request, fresh)


def _finalize(pipeline: Pipeline, recipe: Recipe, request: FinalizationRequest, fresh: FreshProcess) -> Finalized:
    runner, task = pipeline.runner, pipeline.runner.context.task
    dtype, mode = recipe.lowering
    draft = request.to.with_name(f".{request.to.name}.unverified")
    model = pipeline.prefix(recipe)
    artifact = pipeline.artifact(model, dtype, mode)
    test = task.locked_test.open(issue_finalization_key("finalization"))
    runner.report(StageStarted(TEST_SCORING, ""))
    sampling = _TestSample.of_split(pipeline, length(test), request.scoring_s)
    with runner.working():
        fresh.start()  # it imports now, while others may work, and later verifies alone on this machine
    batch_size = pipeline.scored_batch_size(model, dtype, mode)
    device = runner.context.served_on
    with pipeline.lending(may_borrow=lowering.takes_any_threads(mode, device)) as lend:
        predict = pipeline.open(artifact, model, dtype, mode, lend)
        collector = ExampleCollector(predict, _registered_kind(task), replay_bytes=_MAX_TEST_BYTES)
        scores = sampling.score(runner, collector.predict, test, lend, collector.watch, batch_size)
    with runner.working():
        fresh.wait_until_ready(min(TIMEOUT_S, request.deadline - time.monotonic()))
    untouched = _untouched_scores(pipeline, request.scoring_s)
    with runner.working():
        accuracy = replace(to_accuracy("test", scores, task.metric_kind, untouched), batch_size=batch_size)
    runner.report(StageStarted("timing", ""))
    cost = _claimable(pipeline.final_cost(model, dtype, mode, artifact, _samples(request.reference)), request.reference)
    largest = cost.latencies[-1]
    with runner.working():
        served = lowering.load(artifact.folder, mode, runner.context.threads, device) if runner.context.scoring else predict
    energy = _energy(runner, served, cost)
    served_by_all = measure_capacity(pipeline, artifact, mode, fresh, request.reference, request.search_seconds, request.deadline)
    measurement = Measurement(accuracy, cost, None, *energy, served_by_all.capacity, served_by_all.note)
    with runner.working():
        shutil.rmtree(draft, ignore_errors=True)  # left by a killed search: written, but never verified
        shares = task.share_examples and request.share_examples
        synthetic = () if shares else synthetic_examples(served, collector.own[0], task.seed)
        seconds_each = largest.p50_ms.value / largest.batch_size / 1e3
        sample = choose_sample(collector, accuracy.examples, seconds_each, synthetic)
        claims = _claims(runner.context, recipe, model, artifact, measurement, request)
        claims = replace(
            claims,
            test_examples=sample.test_examples,
            test_accuracy=sample.test_accuracy,
            synthetic=not shares,
            split_examples=sampling.split_examples,
        )
        manifest = write_bundle(artifact.folder, draft, claims, sample.own)
    runner.report(StageStarted("verifying", ""))
    verification = _verify(runner, draft, request.deadline, sample.replay, fresh)
    findings = verification.findings
    first_start_ms = cost.cold_start_ms if findings.cold_start_ms is None else findings.cold_start_ms
    found = replace(measurement, peak_memory_bytes=findings.peak_memory_bytes, cost=replace(cost, cold_start_ms=first_start_ms))
    if verification.ok:
        shutil.rmtree(request.to, ignore_errors=True)
        draft.rename(request.to)
        return Finalized(request.to, manifest.digest, found, None)
    shutil.rmtree(draft, ignore_errors=True)
    return Finalized(request.to, manifest.digest, found, "; ".join(check.message for check in verification.failed))


def _claimable(cost: Cost, reference: Cost) -> Cost:
    """Return `cost` with intervals of its milliseconds that hold what other processes and hours find, the verifier's among them."""
    return replace(cost, latencies=tuple(claimable(found, reference.latency(found.batch_size)) for found in cost.latencies))


def _energy(runner: StageRunner, served: Predict, cost: Cost) -> tuple[float | None, str | None]:
    """Return joules of a prediction by `served`, and their source: meters, else an estimate. A GPU without a meter has neither."""
    device, batch_size = runner.context.served_on, cost.latencies[-1].batch_size
    meters = find_meters()
    if not device.is_cpu and not counts_gpu(meters):
        return None, None
    inputs = device.move_inputs(runner.context.samples.serving_inputs(batch_size))

    def call_and_wait() -> None:
        served(inputs)
        device.wait()

    with runner.alone() if meters else runner.working():  # an estimate runs nothing
        energy = measure_energy(call_and_wait, batch_size, cost, meters=meters)
    return energy.energy_j_per_prediction, energy.energy_source


@dataclass(frozen=True)
class ReplaySample:
    """What the verifier replays: the bundle's `own` examples, and `replay`, the first batches of the test split.

    `test_examples` and `test_accuracy` are None where the whole test split is replayed, or none of it: `own` are synthetic, and one
    batch of the split is too large to keep.
    """

    own: tuple[ExampleBatch, ...]
    replay: tuple[ExampleBatch, ...]
    test_examples: int | None
    test_accuracy: float | None


def choose_sample(
    collector: ExampleCollector, examples: int, seconds_each: float, synthetic: tuple[ExampleBatch, ...] = ()
) -> ReplaySample:
    """Choose what is replayed in about `_REPLAY_S` seconds, if one of the `examples` of the test split takes `seconds_each`.

    The sample holds the first examples of the split, as far as they were collected. One that is no larger than the bundle's own
    examples is not replayed beside them, unless those are `synthetic`.
    """
    most = int(min(_REPLAY_S / seconds_each, 2 * examples))
    own = synthetic or first_batches(collector.own, max(most, _FEWEST_EXAMPLES))
    replay = first_batches(collector.replay, most - number_of_examples(own))
    whole = number_of_examples(replay) == examples
    if number_of_examples(replay) <= number_of_examples(own) and not whole and not synthetic:
        replay = ()
    sample = replay or own
    if number_of_examples(sample) == examples or (synthetic and not replay):
        return ReplaySample(own, replay, None, None)
    return ReplaySample(own, replay, number_of_examples(sample), claimed_metric(collector.kind, sample))


def _registered_kind(task: Task) -> str | None:
    """Return the kind whose metric the task uses; None if the metric is the user's own code."""
    return task.kind if task.metric is None and task.summarize is None else None


def _samples(reference: Cost) -> int:
    seconds_each = sum(latency.p50_ms.value for latency in reference.latencies) / 1e3
    return max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, int(_TIMING_S / seconds_each)))


@dataclass(frozen=True)
class _TestSample:
    """The examples of the test split that are scored: those at `positions`, or all where it is None. `of` is the split's size."""

    of: int
    positions: NDArray[np.int64] | None
    seconds_each: float

    @staticmethod
    def of_split(pipeline: Pipeline, of: int, seconds: float) -> _TestSample:
        """Return the sample that is scored in about `seconds`, the same for every model of a study; all where scoring is fast."""
        context = pipeline.runner.context
        if context.scoring is None:
            return _TestSample(of, None, 0.0)
        count = sample_size(of, context.scoring.seconds_each, seconds)
        return _TestSample(of, sampled(of, count, context.seed), context.scoring.seconds_each)

    @property
    def split_examples(self) -> int | None:
        """Size of the split, if not all of it is scored."""
        return None if self.positions is None or len(self.positions) == self.of else self.of

    def score(
        self,
        runner: StageRunner,
        predict: Predict,
        test: Examples,
        lend: Callable[[], object],
        watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
        batch_size: int | None = None,
    ) -> Scores:
        """Score the examples, by default in the task's batches."""
        if self.positions is not None:
            return SlowScoring(runner, self.positions, self.seconds_each, lend, watch=watch).score(predict, test, batch_size)
        task = runner.context.task
        with runner.working():
            return score_model(predict, watch(task.loader(test, batch_size or task.batch_size)), task.metric_kind)


def measure_untouched(pipeline: Pipeline, scoring_s: float = math.inf, search_seconds: float = math.inf) -> Measurement:
    """Measure the untouched model on the test split, as the user runs it: everything is compared with it."""
    pipeline.runner.report(StageStarted(TEST_SCORING, ""))
    scores = _untouched_scores(pipeline, scoring_s)
    with pipeline.runner.working():
        accuracy = to_accuracy("test", scores, pipeline.runner.context.task.metric_kind, scores)
    cost = pipeline.cost(pipeline.baseline, *UNTOUCHED.lowering)
    found = untouched_capacity(pipeline, cost, search_seconds)
    return Measurement(accuracy, cost, capacity=found.capacity, capacity_note=found.note)


def _untouched_scores(pipeline: Pipeline, scoring_s: float) -> Scores:
    """Return the untouched model's scores on the test split, computed once a study."""
    runner = pipeline.runner
    split = runner.context.task.locked_test
    test = split.open(issue_finalization_key("finalization of the untouched model"))
    sampling = _TestSample.of_split(pipeline, length(test), scoring_s)
    with runner.working():
        settings: dict[str, Any] = {"numerics": "untouched", "split": "test", "examples": split.fingerprint, **runner.served_on}
    if sampling.positions is not None:
        settings["sample"] = len(sampling.positions)

    with pipeline.lending(may_borrow=True) as lend:
        stage = scores_stage(
            runner,
            pipeline.baseline.key,
            settings,
            UNTOUCHED_TEST,
            lambda: pipeline.untouched_predict,
            lambda predict: (sampling.score(runner, predict, test, lend), None),
        )
        return read_scores(runner.run(stage))


def _verify(
    runner: StageRunner, folder: Path, deadline: float, replay: tuple[ExampleBatch, ...], fresh: FreshProcess
) -> Verification:
    with tempfile.TemporaryDirectory(prefix="autocut-test-") as scratch:
        examples = Path(scratch) / "test.npz" if replay else None
        if examples:
            with runner.working():
                write_examples(examples, replay)
        timeout_s = max(0.1, min(TIMEOUT_S, deadline - time.monotonic()))
        verification = verify_bundle(
            folder, examples=examples, process=fresh, timeout_s=timeout_s, alone=runner.alone, working=runner.working,
            checks_capacity=False,  # this process has just measured it
        )  # fmt: skip
    if time.monotonic() >= deadline:
        raise DeadlineError("the time of the search was up before the bundle was verified")
    return verification


def _claims(
    context: StageContext, recipe: Recipe, model: Prefix, artifact: Entry, measurement: Measurement, request: FinalizationRequest
) -> Claims:
    task, price = context.task, request.price
    values = values_of(measurement, request.reference, price, model.train_seconds)
    usd_per_million, untouched = dollars_of(measurement, request.reference, price)
    search_usd = usd_for(price, request.spent_s)
    bill = Bill(price, untouched, usd_per_million, search_usd, values["train_usd"], request.serving.requests_per_month)
    is_trained = recipe.is_trained or not task.is_pretrained
    return Claims(
        task=task.name,
        recipe=recipe,
        measurement=measurement,
        values=values,
        kind=_registered_kind(task),
        metric=task.metric_kind.name,
        command=request.command,
        seed=context.seed,
        trial=request.trial,
        timed_sizes={}
        if task.dynamic is None
        else {size: sizes_of(task.dynamic, context.samples.serving_inputs(size)) for size in task.serving_batch_sizes},
        lineage=(*model.lineage, artifact.key),
        economics=economics_of(bill, request.serving, measurement.energy_j_per_prediction, fit(price, this_host())),
        validation=request.validation,
        trained_on=None if context.device.is_cpu or not is_trained else context.device.kind,
        train_precision=None if context.device.precision == FULL or not is_trained else context.device.precision,
        served_on=context.served_on,
        machine_details=asdict(describe_machine()) | gpu_state(context.served_on),
    )
