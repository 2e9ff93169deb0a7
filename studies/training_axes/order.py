"""Prune first and let the training recover, or train first and prune after it (`prune.when`)? The same cuts in both orders.

    python studies/training_axes/order.py students --methods structured structured_taylor l1_unstructured
    AUTOCUT_DATA=/data python studies/training_axes/order.py snips --methods heads_and_neurons --epochs 2 --seeds 3

Every model goes through autocut's own pipeline. With each seed everything is made anew, the untouched model too. A row has the mean
accuracy on the validation split of the float model, with its standard deviation between the seeds, and the CPU seconds of its
training. What is pruned last shares one training of each length with all other cuts: the last lines say what all of them take.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

from autocut.counting import format_count
from autocut.errors import InfeasibleRecipeError
from autocut.measure.quiet import QuietLock
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.recipe import AFTER_TRAINING, PRUNE_WHEN, UNTOUCHED, Recipe, Value
from autocut.task.loading import load_task

STUDIES = Path(__file__).parents[1]
LOSSES: dict[str, dict[str, Value]] = {
    "none": {},
    "kl": {"distill.loss": "kl", "distill.temperature": 4.0, "distill.alpha": 0.5},
}


def main() -> None:
    """Make and score every model, a seed at a time, and print a row for each."""
    asked = _arguments()
    torch.set_num_threads(1)
    recipes = recipes_of(asked)
    accuracies, seconds = defaultdict[Recipe, list[float]](list), defaultdict[Recipe, list[float]](list)
    reasons: dict[Recipe, str] = {}
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as folder:
            pipeline = _pipeline(asked.study, Path(folder), seed)
            for recipe in recipes:
                try:
                    model = pipeline.prefix(recipe)
                except InfeasibleRecipeError as error:
                    reasons[recipe] = error.message
                    continue
                accuracies[recipe].append(pipeline.accuracy(model, *UNTOUCHED.lowering).metric.value)
                seconds[recipe].append(model.train_seconds - pipeline.baseline.train_seconds)
                print(f"seed {seed}: {recipe.describe()}: {accuracies[recipe][-1]:.4f}", flush=True)
    print(f"{asked}\n| model | accuracy | CPU seconds |\n|---|---|---|")
    for recipe in recipes:
        cells = f"{_spread(accuracies[recipe])} | {_mean(seconds[recipe]):.1f}" if accuracies[recipe] else f"{reasons[recipe]} |"
        print(f"| {recipe.describe()} | {cells} |")
    for words, total in _totals(recipes, {recipe: _mean(seconds[recipe]) for recipe in recipes}).items():
        print(f"all cuts, {words}: {total:.1f} CPU seconds")


def recipes_of(asked: argparse.Namespace) -> list[Recipe]:
    """Return the untouched model, its trainings, then each cut: not trained, and of each length in both orders."""
    trainings = [
        Recipe({"train.epochs": epochs, "train.lr_scale": asked.lr_scale, **LOSSES[asked.loss]}) for epochs in asked.epochs
    ]
    found = [UNTOUCHED, *trainings]
    for method in asked.methods:
        for ratio in asked.ratios:
            cut: dict[str, Value] = {"prune.method": method, "prune.ratio": ratio}
            found.append(Recipe(cut))
            for training in trainings:
                found += [Recipe({**training, **cut}), Recipe({**training, **cut, PRUNE_WHEN: AFTER_TRAINING})]
    return found


def _pipeline(study: str, folder: Path, seed: int) -> Pipeline:
    context = StageContext(
        load_task(STUDIES / study / "task.py"), StageCache(folder / "stages"), QuietLock(folder / "locks"), seed=seed
    )
    return Pipeline(context)


def _totals(recipes: list[Recipe], seconds: dict[Recipe, float]) -> dict[str, float]:
    """Return the seconds that all cuts of one length and order take together, where no training is made twice."""
    totals = defaultdict[str, float](float)
    for recipe in recipes:
        if recipe.changes("prune.method") and recipe.is_trained:
            words = f"{'train, prune' if recipe.prunes_last else 'prune, train'}, {format_count(recipe.all_epochs, 'epoch')}"
            shared_s = seconds[recipe.parent] if recipe.parent is not None else 0.0
            totals.setdefault(words, shared_s)
            totals[words] += seconds[recipe] - shared_s
    return totals


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--methods", nargs="+", default=["structured"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.25, 0.5, 0.75])
    parser.add_argument("--epochs", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--lr-scale", type=float, default=1.0)
    parser.add_argument("--loss", choices=LOSSES, default="kl")
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
