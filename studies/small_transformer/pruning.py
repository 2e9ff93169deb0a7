"""What do the pruning methods cost and bring on the small transformer? A table by hand, without a search.

    python studies/small_transformer/pruning.py train --epochs 4        the untouched model
    python studies/small_transformer/pruning.py rank                    accuracy right after each cut, before any training
    python studies/small_transformer/pruning.py recover heads_and_neurons:0.5 --epochs 2
    python studies/small_transformer/pruning.py lower                   files for ONNX Runtime and OpenVINO, with their accuracy
    python studies/small_transformer/pruning.py time                    all of them by turns in one run, on one thread

Models and files lie in `runs/pruning/`. Accuracies are of the validation split.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from autocut.errors import AutocutError
from autocut.stages import lowering
from autocut.stages.prune import PruneData, pruners
from autocut.stages.train import train_model
from autocut.stages.train.teacher import Teacher, teacher_logits
from autocut.task.splits import length, spread

sys.path.insert(0, str(Path(__file__).parent))
from task import task

FOLDER = Path(__file__).parent / "runs" / "pruning"
METHODS = ("heads_and_neurons", "heads_and_neurons_random", "structured", "structured_taylor", "depth")
RATIOS = (0.25, 0.5, 0.75)
LOWERINGS = (("fp32", "onnxruntime"), ("int8_dynamic", "onnxruntime"), ("int8_static", "openvino"))
DISTILLED = {"distill.loss": "kl", "distill.temperature": 4.0, "distill.alpha": 0.5, "train.lr_scale": 0.5}


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("train", "rank", "recover", "lower", "time"))
    parser.add_argument("cuts", nargs="*", help="METHOD:RATIO of the step recover")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the step time, for each batch size")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    if asked.step == "train":
        keep("untouched", train_model(task.build_model(seed=0), task, {"train.epochs": asked.epochs}).model)
    elif asked.step == "rank":
        rank()
    elif asked.step == "recover":
        recover([(method, float(ratio)) for method, _, ratio in (cut.partition(":") for cut in asked.cuts)], asked.epochs)
    elif asked.step == "lower":
        lower()
    else:
        for size in task.serving_batch_sizes:
            time_all(size, asked.seconds)


def rank() -> None:
    """Print how much of the weights and of the accuracy each method leaves at each ratio."""
    model = read("untouched")
    print(f"untouched: {accuracy(model):.4f}")
    for ratio in RATIOS:
        for method in METHODS:
            began = time.perf_counter()
            try:
                pruned = pruners[method](model, ratio, prune_data()).model
            except AutocutError as error:
                print(f"{method} {ratio}: {error}")
                continue
            seconds = time.perf_counter() - began
            print(
                f"{method} {ratio}: {weights(pruned) / weights(model):.2f} of the weights, {accuracy(pruned):.4f}, {seconds:.1f} s"
            )


def recover(cuts: list[tuple[str, float]], epochs: int) -> None:
    """Prune, and train with the untouched model as the teacher."""
    model = read("untouched")
    teacher = Teacher(model, teacher_logits(model, task))
    for method, ratio in cuts:
        pruned = pruners[method](model, ratio, prune_data()).model
        trained = train_model(pruned, task, {"train.epochs": epochs, **DISTILLED}, teacher=teacher)
        keep(f"{method} {ratio}, {epochs} epochs", trained.model)


def lower() -> None:
    """Write every kept model for every lowering, and print its size and accuracy."""
    calibration = [inputs for inputs, _ in prune_data().batches]
    for file in sorted(FOLDER.glob("*.pt")):
        for dtype, mode in LOWERINGS:
            folder = FOLDER / f"{file.stem} + {dtype} + {mode}"
            if folder.exists():
                continue
            folder.mkdir()
            try:
                lowering.lower(read(file.stem), dtype, mode, calibration, folder)
            except AutocutError as error:
                print(f"{folder.name}: {error}")
                shutil.rmtree(folder)
                continue
            size = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
            print(f"{folder.name}: {size / 1e6:.2f} MB, {accuracy(lowering.load(folder, mode)):.4f}", flush=True)


def time_all(batch_size: int, seconds: float) -> None:
    """Time all models and files by turns; print medians, and ratios to the untouched model."""
    inputs = next(iter(task.loader(task.validation_data, batch_size)))[0]
    calls: dict[str, Callable[[Tensor], Tensor]] = {file.stem: read(file.stem) for file in sorted(FOLDER.glob("*.pt"))}
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        calls[folder.name] = lowering.load(folder, folder.name.rpartition(" + ")[2])
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, ends = list(calls), time.perf_counter() + seconds
    with torch.no_grad():
        while time.perf_counter() < ends:
            random.shuffle(order)
            for name in order:
                began = time.perf_counter()
                calls[name](inputs)
                times[name].append(time.perf_counter() - began)
    untouched = statistics.median(times["untouched"])
    for name, all_of_it in times.items():
        median = statistics.median(all_of_it)
        print(f"batch {batch_size}, {name}: {1e3 * median:.3f} ms, {untouched / median:.2f}x, {len(all_of_it)} calls")


def prune_data() -> PruneData:
    """Return eight training batches, as the search prunes with."""
    batches = list(task.loader(task.train_data, task.batch_size, spread(length(task.train_data), 8 * task.batch_size)))
    return PruneData(batches[0][0][:2], batches, task.metric_kind.loss)


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor]) -> float:
    """Share of the validation split that is right."""
    right = [predict(inputs).argmax(1) == targets for inputs, targets in task.loader(task.validation_data, 32)]
    return float(torch.cat(right).float().mean())


def weights(model: nn.Module) -> int:
    """Number of weights of the encoder."""
    return sum(parameter.numel() for parameter in model.get_submodule("encoder").parameters())


def keep(name: str, model: nn.Module) -> None:
    """Write `model` to a file, and print its accuracy and its weights."""
    torch.save(model, FOLDER / f"{name}.pt")
    print(f"{name}: {weights(model)} weights in the encoder, {accuracy(model):.4f}", flush=True)


def read(name: str) -> nn.Module:
    """Read a model that `keep` wrote."""
    return torch.load(FOLDER / f"{name}.pt", weights_only=False).eval()


if __name__ == "__main__":
    main()
