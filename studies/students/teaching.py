"""What does the teacher bring a student? Both students, trained with labels alone and with distillations, without a search.

    python studies/students/teaching.py

Prints the mean validation accuracy over three seeds, at the task's learning rate and at three times that rate.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch
from torch import nn

from autocut.recipe import Value
from autocut.stages.train import Teacher, teacher_logits, train_model
from autocut.task.batches import call

sys.path.insert(0, str(Path(__file__).parent))
from task import task

TEACHINGS: dict[str, dict[str, Value]] = {"labels alone": {}} | {
    f"kl T={temperature:g} alpha={alpha:g}": {
        "distill.loss": "kl", "distill.temperature": temperature, "distill.alpha": alpha
    }
    for temperature in (4.0, 2.0)
    for alpha in (0.9, 0.5)
}  # fmt: skip
RATES, SEEDS = (1.0, 3.0), (0, 1, 2)


def main() -> None:
    """Train the teacher, then each student in each way."""
    torch.set_num_threads(1)
    images, labels = next(iter(task.loader(task.validation_data, len(task.validation_data))))

    def accuracy(model: nn.Module) -> float:
        return float((call(model, images).argmax(1) == labels).double().mean())

    untouched = train_model(task.build_model(), task, {"train.epochs": task.epochs}).model
    teacher = Teacher(untouched, teacher_logits(untouched, task))
    print(f"teacher {accuracy(untouched):.4f}", flush=True)
    for name in task.student_names:
        for words, distilled in TEACHINGS.items():
            for rate in RATES:
                settings: dict[str, Value] = {"train.epochs": task.epochs, "train.lr_scale": rate, **distilled}
                trained = [train_model(task.build_student(name), task, settings, teacher=teacher, seed=seed) for seed in SEEDS]
                mean = statistics.fmean(accuracy(each.model) for each in trained)
                print(f"{name:8} x{rate:g} {words:18} {mean:.4f}", flush=True)


if __name__ == "__main__":
    main()
