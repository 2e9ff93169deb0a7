"""What does each way of training bring a pruned model? The same training with one thing changed, several seeds each.

    AUTOCUT_DATA=/data python studies/training_axes/measure.py cifar10_resnet20 aware
    AUTOCUT_DATA=/data python studies/training_axes/measure.py fashion_mnist curriculum --epochs 2

Half of the channels are removed (`structured`), then the model is trained on; or it is trained from scratch, or a student is. A row
has the mean accuracy on the validation split, of the float model and of each lowering, with its standard deviation between the
seeds; the samples seen; and the CPU seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.pipeline.samples import Samples
from autocut.recipe import Lowering, Value
from autocut.stages import lowering
from autocut.stages.lowering import Predict
from autocut.stages.prune import PruneData, pruners
from autocut.stages.train import Teacher, Trained, input_growths, score_difficulty, teacher_logits, train_model
from autocut.task.batches import Inputs, call, take
from autocut.task.loading import load_task
from autocut.task.task import Task

STUDIES = Path(__file__).parents[1]
RATIO = 0.5
INT8: tuple[Lowering, ...] = (("int8_static", "onnxruntime"), ("int8_static", "openvino"))
INT4: tuple[Lowering, ...] = (("int4_weight_only", "onnxruntime"),)
KL: dict[str, Value] = {"distill.loss": "kl", "distill.temperature": 4.0, "distill.alpha": 0.5}
AWARE_INT8: dict[str, Value] = {"train.quantization_aware": "int8"}
AWARE_INT4: dict[str, Value] = {"train.quantization_aware": "int4"}


def paced(schedule: str, order: str) -> dict[str, Value]:
    """Settings of a curriculum that begins with half of the data."""
    return {"curriculum.schedule": schedule, "curriculum.order": order, "curriculum.start": 0.5}


COMPARISONS: Mapping[str, tuple[tuple[Lowering, ...], Mapping[str, Mapping[str, Value]]]] = {
    "aware": (INT8, {"plain": {}, "aware of int8": AWARE_INT8, "kl": KL, "kl, aware of int8": {**KL, **AWARE_INT8}}),
    "aware_int4": (INT4, {"plain": {}, "aware of int4": AWARE_INT4, "kl": KL, "kl, aware of int4": {**KL, **AWARE_INT4}}),
    "distill": (
        (),
        {
            "plain": {},
            "kl": KL,
            "kl, alpha to 0": {**KL, "distill.decay": "linear"},
            "kl, similarity": {**KL, "distill.features": "similarity"},
            "kl, hint": {**KL, "distill.features": "hint"},
            "dkd": {**KL, "distill.loss": "dkd"},
            "dkd, alpha to 0": {**KL, "distill.loss": "dkd", "distill.decay": "linear"},
        },
    ),
    "settings": ((), {"plain": {}, "ema 0.99": {"train.ema": 0.99}, "label smoothing 0.1": {"train.label_smoothing": 0.1}}),
    "growth": (
        (),
        {"plain": {}} | {name: {"train.input_growth": name} for name in input_growths.names() if name != "none"},
    ),
    "curriculum": (
        (),
        {"plain": {}}
        | {f"linear {order}": paced("linear", order) for order in ("random", "easy_first", "self_paced")}
        | {f"hold {order}": paced("hold", order) for order in ("random", "infobatch")},
    ),
}


def main() -> None:
    """Train and print a row for each way."""
    asked = _arguments()
    torch.set_num_threads(1)
    task = load_task(STUDIES / asked.study / "task.py")
    samples = Samples(task, 0)
    untouched = _untouched(task, asked.weights)
    batches = samples.batches(8, task.batch_size)
    data = PruneData(take(batches[0][0], 2), batches, task.metric_kind.loss, untouched)
    model = pruners["structured"](untouched, asked.ratio, data).model if asked.ratio else untouched
    teacher = Teacher(untouched, teacher_logits(untouched, task))
    difficulty = score_difficulty(teacher, task) if asked.comparison == "curriculum" else None
    pairs, ways = COMPARISONS[asked.comparison]
    print(f"{asked}\n{'':28} fp32 eager   " + "   ".join(map("/".join, pairs)) + "   samples   seconds", flush=True)
    print(_row("untouched", [_accuracies(untouched, task, samples, pairs)], []), flush=True)
    for words, changed in ((words, ways[words]) for words in asked.ways or ways):
        settings: dict[str, Value] = {"train.epochs": asked.epochs, "train.lr_scale": asked.lr_scale, **changed}
        started = [_start(asked, task, model, seed=at) for at in range(asked.seeds)]
        try:
            trained = [
                train_model(each, task, settings, teacher=teacher, difficulty=difficulty, seed=at)
                for at, each in enumerate(started)
            ]
        except InfeasibleRecipeError as error:
            print(f"{words:28} infeasible: {error}", flush=True)
            continue
        print(_row(words, [_accuracies(one.model, task, samples, pairs) for one in trained], trained), flush=True)


def _start(asked: argparse.Namespace, task: Task, cut: nn.Module, seed: int) -> nn.Module:
    """Return the model that the training with `seed` begins with."""
    if asked.student:
        return dataclasses.replace(task, seed=seed).build_student(asked.student)
    return task.build_model(seed=seed) if asked.scratch else cut


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--ways", nargs="+", help="these rows alone, such as: --ways plain kl")
    parser.add_argument("--ratio", type=float, default=RATIO, help="share of the channels that is removed")
    parser.add_argument("--scratch", action="store_true", help="train the task's model, not cut, with new weights of each seed")
    parser.add_argument("--student", help="train this student of the task, with new weights of each seed")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr-scale", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=Path, help="file that keeps the untouched model's weights, where it has to be trained")
    return parser.parse_args()


def _untouched(task: Task, kept: Path | None) -> nn.Module:
    """Return the task's model with trained weights."""
    model = task.build_model()
    if not task.is_pretrained:
        if kept is not None and kept.exists():
            model.load_state_dict(torch.load(kept, weights_only=True))
        else:
            model = train_model(model, task, {"train.epochs": task.epochs}).model
        if kept is not None:
            torch.save(model.state_dict(), kept)
    return model.eval()


def _accuracies(model: nn.Module, task: Task, samples: Samples, pairs: Iterable[Lowering]) -> list[float]:
    """Accuracy of the model as it is, then with each pair of dtype and mode."""

    def eager(inputs: Inputs) -> Tensor:
        return call(model, inputs)

    found = [_accuracy(eager, task)]
    for dtype, mode in pairs:
        with tempfile.TemporaryDirectory() as folder:
            lowering.lower(model, dtype, mode, samples.calibration, Path(folder), dynamic=task.dynamic)
            found.append(_accuracy(lowering.load(Path(folder), mode, 1), task))
    return found


@torch.no_grad()
def _accuracy(predict: Predict, task: Task) -> float:
    kind = task.metric_kind
    parts = [(kind.scores(predict(inputs), targets), targets) for inputs, targets in task.loader(task.validation_data, 256)]
    scores, targets = (np.concatenate([np.asarray(part) for part in each]) for each in zip(*parts, strict=True))
    return float(kind.summarize(scores, targets))


def _row(words: str, accuracies: list[list[float]], trained: list[Trained]) -> str:
    cells = []
    for values in zip(*accuracies, strict=True):
        spread = f" +-{statistics.stdev(values):.4f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.4f}{spread}")
    samples = statistics.fmean(one.samples_seen for one in trained) if trained else 0
    seconds = statistics.fmean(one.cpu_seconds for one in trained) if trained else 0
    return f"{words:28} " + "   ".join(cells) + f"   {samples:.0f}   {seconds:.1f}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
