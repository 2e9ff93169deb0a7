"""Is one of our bundles as fast as the fastest runtime that was set up by hand, at no less accuracy? All by turns, in one run.

    python studies/peers/run.py STUDY... [--examples 500]

The verified bundles of a study are scored and timed beside what an engineer gets without a search (`by_hand.py`): the same trained
weights, inputs and number of threads. A peer is met by a bundle that is no less accurate and at least as fast. "No less accurate"
means that the paired test at 5% tells no loss on the examples of the validation split. The peer and the fastest such bundle then
run head to head.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from by_hand import PEERS, Predict, Setup

import autocut
from autocut.budget import format_duration
from autocut.measure.accuracy import Scores, score_model, to_accuracy
from autocut.measure.latency import measure_latency
from autocut.measure.processor import this_host
from autocut.measure.turns import time_interleaved
from autocut.measurement import SIGNIFICANT, Interval
from autocut.pipeline.opened_pipeline import open_pipeline
from autocut.pipeline.samples import Samples
from autocut.study import open_study
from autocut.task.batches import Inputs
from autocut.task.splits import length, spread
from autocut.task.task import Task

_ROUNDS, _FEWEST, _LONGEST_S = 60, 6, 45.0
_SLOW_MS = 50.0
"""A slow call is as fast the first time as the second (`autocut.measure.latency`)."""


@dataclass(frozen=True)
class Runner:
    """A model that can be called, and its scores on the examples by which all are compared."""

    name: str
    predict: Predict
    scores: Scores
    metric: float


@dataclass(frozen=True)
class Contest:
    """Bundles and peers of one task. `left_out` has the reason for each peer that cannot be set up."""

    task: Task
    threads: int
    bundles: Sequence[Runner]
    peers: Sequence[Runner]
    left_out: Mapping[str, str]

    def is_no_less_accurate(self, bundle: Runner, peer: Runner) -> bool:
        """Whether the paired test tells no loss."""
        found = to_accuracy("validation", bundle.scores, self.task.metric_kind, peer.scores)
        if found.difference is None or found.p_value is None:
            raise RuntimeError("two scores of the same examples give a paired difference")
        return found.difference.value >= 0 or found.p_value >= SIGNIFICANT

    def medians(self, inputs: Inputs) -> Mapping[str, float]:
        """Time all by turns; return the median in ms for each name."""
        calls = {runner.name: _bound(runner.predict, inputs) for runner in (*self.bundles, *self.peers)}
        rng = np.random.default_rng(0)
        first = time_interleaved(calls, 2, rng, once=calls)
        slow = [name for name, times in first.items() if times[-1] >= _SLOW_MS]
        times = time_interleaved(calls, _ROUNDS, rng, once=slow, seconds=_LONGEST_S, fewest=_FEWEST)
        return {name: float(np.median(of_name)) for name, of_name in times.items()}

    def challenger(self, peer: Runner, medians: Mapping[str, float]) -> Runner | None:
        """Return the fastest bundle that is no less accurate than `peer`."""
        fit = [bundle for bundle in self.bundles if self.is_no_less_accurate(bundle, peer)]
        return min(fit, key=lambda bundle: medians[bundle.name], default=None)


def contest(folder: Path, examples: int, scratch: Path) -> Contest:
    """Load the verified bundles of the study in `folder`, and set up every peer with its untouched model."""
    with contextlib.closing(open_study(folder)) as study:
        pipeline = open_pipeline(study, study.trials())
        threads = int(study.facts["threads"])
    task, model = pipeline.runner.context.task, pipeline.baseline.model
    data = task.validation_data
    loader = task.loader(data, task.batch_size, spread(length(data), examples))

    def runner(name: str, predict: Predict) -> Runner:
        scores = score_model(predict, loader, task.metric_kind)
        return Runner(name, predict, scores, to_accuracy("validation", scores, task.metric_kind).metric.value)

    points = [point for point in autocut.open_study(folder).points() if point.bundle and point.recipe.settings]
    bundles = [runner(point.recipe.describe(), autocut.load(point.bundle, threads).predict) for point in points]
    setup = Setup(model, Samples(task, task.seed).calibration, threads, scratch)
    peers, left_out = [], {}
    for name, make in PEERS.items():
        began = time.perf_counter()
        try:
            peers.append(runner(f"by hand: {name}", make(setup)))
        except Exception as error:
            # A runtime may raise anything.
            left_out[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:150]}"
        print(f"  {name}: set up and scored in {format_duration(time.perf_counter() - began)}", flush=True)
    return Contest(task, threads, bundles, peers, left_out)


def report(folder: Path, examples: int, batch_sizes: Sequence[int]) -> bool:
    """Print what was found for one study; return whether every peer is met at every batch size."""
    print(f"{folder.name}:", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        found = contest(folder, examples, Path(scratch))
        scored = len(found.peers[0].scores.scores)
        print(f"  {this_host().name}, {found.threads} thread(s), accuracy on {scored} validation examples")
        for name, reason in found.left_out.items():
            print(f"  left out: {name}: {reason}")
        samples = Samples(found.task, found.task.seed)
        met = [_report_size(found, size, samples.serving_inputs(size)) for size in batch_sizes or found.task.serving_batch_sizes]
    return all(met)


def _report_size(found: Contest, size: int, inputs: Inputs) -> bool:
    medians = found.medians(inputs)
    met = True
    print(f"\n| batch {size} | accuracy | ms | by hand: the fastest bundle that is no less accurate | how much faster it is |")
    print("|---|---|---|---|---|")
    for runner in sorted((*found.bundles, *found.peers), key=lambda runner: medians[runner.name]):
        beside = "| | |"
        if runner in found.peers:
            bundle = found.challenger(runner, medians)
            ratio = None if bundle is None else _head_to_head(bundle, runner, inputs)
            met &= ratio is not None and ratio.high >= 1
            beside = "| none | |" if bundle is None or ratio is None else f"| {bundle.name} | {_told(ratio)} |"
        print(f"| {runner.name} | {runner.metric:.4f} | {medians[runner.name]:.3g} {beside}", flush=True)
    print(f"\nbatch {size}: " + ("every peer is met" if met else "NOT every peer is met"), flush=True)
    return met


def _head_to_head(bundle: Runner, peer: Runner, inputs: Inputs) -> Interval:
    return measure_latency(bundle.predict, peer.predict, inputs).speedup


def _told(ratio: Interval) -> str:
    return f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _bound(predict: Predict, inputs: Inputs) -> Callable[[], object]:
    return lambda: predict(inputs)


def main() -> None:
    """Compare the bundles of each study with what is set up by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--examples", type=int, default=1000, help="validation examples that all are scored on (default: 1000)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[], help="default: those of the task")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    met = [report(folder, options.examples, options.batch_sizes) for folder in options.studies]
    print(f"\n{sum(met)} of {len(met)} studies meet every peer at every batch size")


if __name__ == "__main__":
    main()
