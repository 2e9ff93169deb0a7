"""What bf16 and channels last save a training, and what they do to the accuracy: the same training in each way, seed by seed.

    python studies/train_precision/measure.py TASK.py --epochs 3 --seeds 5

`--cut 0.5` prunes half of the untouched model by `structured` first, as in a recovery. `--batches 20` compares the seconds of a few
batches alone, for a model that trains for minutes. The plain way is fp32, contiguous. The last line is what a search would choose.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocut.pipeline.samples import Samples
from autocut.precision import MEMORY_FORMATS, PRECISIONS
from autocut.stages.prune import PruneData, pruners
from autocut.stages.train import Device, fastest_way, train_model
from autocut.task.batches import call, take
from autocut.task.loading import load_task
from autocut.task.task import Task

WAYS = {
    f"{precision} {memory_format}": Device("cpu", precision, memory_format)
    for precision in PRECISIONS
    for memory_format in MEMORY_FORMATS
}
PLAIN, *OTHERS = WAYS


def main() -> None:
    """Train the seeds one after the other, the ways of a seed in turns, and print the medians."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    task = load_task(asked.task)
    if asked.batches:
        _few(task, asked.batches)
    ratios: dict[str, list[float]] = {name: [] for name in OTHERS}
    differences: dict[str, list[float]] = {name: [] for name in OTHERS}
    for seed in range(asked.seeds):
        results = {}
        # Who comes first would otherwise always pay for what a process does once.
        for name in WAYS if seed % 2 else reversed(WAYS):
            torch.manual_seed(seed)
            model = _cut(task, asked.cut) if asked.cut else task.build_model()
            started = time.perf_counter()
            trained = train_model(model, task, {"train.epochs": asked.epochs}, seed=seed, device=WAYS[name])
            results[name] = time.perf_counter() - started, _metric(trained.model, task)
        print(f"seed {seed}: " + "; ".join(f"{name} {s:.1f} s, {metric:.4f}" for name, (s, metric) in results.items()), flush=True)
        for name in OTHERS:
            ratios[name].append(results[PLAIN][0] / results[name][0])
            differences[name].append(results[name][1] - results[PLAIN][1])
    for name in OTHERS if asked.seeds else ():
        spread = f"{min(ratios[name]):.2f} to {max(ratios[name]):.2f}"
        median = statistics.median(ratios[name])
        print(f"{task.name}: {name} trains {median:.2f}x as fast ({spread}), metric {_told(differences[name])}")
    chosen = fastest_way(task, "cpu", PRECISIONS)
    print(
        f"{task.name}: a search trains in {chosen.precision} {chosen.memory_format}, {chosen.speedup:.2f}x as fast by a few steps"
    )


def _few(task: Task, batches: int) -> None:
    """Train on a few batches of the data, in turns, three times each."""
    some = torch.utils.data.Subset(task.train_data, range(batches * task.batch_size))
    few = dataclasses.replace(task, train=some)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(3):
        for name, way in WAYS.items():
            trained = train_model(task.build_model(), few, {"train.epochs": 1}, device=way)
            seconds[name].append(1e3 * trained.seconds / trained.samples_seen)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, each in medians.items():
        print(f"{task.name}: {each:.2f} ms a sample in {name}: {medians[PLAIN] / each:.2f}x")


def _cut(task: Task, ratio: float) -> nn.Module:
    model = task.build_model()
    batches = Samples(task, 0).batches(8, task.batch_size)
    data = PruneData(take(batches[0][0], 2), batches, task.metric_kind.loss, model)
    return pruners["structured"](model, ratio, data).model


@torch.no_grad()
def _metric(model: nn.Module, task: Task) -> float:
    kind = task.metric_kind
    parts = [(kind.scores(call(model, inputs), targets), targets) for inputs, targets in task.loader(task.validation_data, 256)]
    scores, targets = (np.concatenate([np.asarray(part) for part in each]) for each in zip(*parts, strict=True))
    return float(kind.summarize(scores, targets))


def _told(differences: list[float]) -> str:
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
    return f"{statistics.mean(differences):+.4f} (standard error {error:.4f}) over {len(differences)} seeds"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cut", type=float, default=0.0)
    parser.add_argument("--batches", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
