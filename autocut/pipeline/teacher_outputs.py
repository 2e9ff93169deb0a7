"""What a training gets from its teacher: logits to distill from, an order of its examples, and the bill for both.

The teacher is the task's own or the untouched model. It is run once for all trainings; ranking by it is a stage of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autocut.pipeline.samples import Samples
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Workshop
from autocut.recipe import Value
from autocut.stages.model_files import Prefix
from autocut.stages.train import Teacher, check_distillation, orders, score_difficulty, teacher_logits
from autocut.stages.train.plan import DEFAULTS
from autocut.task.batches import call
from autocut.task.task import seeded


@dataclass(frozen=True)
class Lesson:
    """What one training is taught by: nothing, where it asks for nothing. `seconds` is what it owes for that."""

    teacher: Teacher | None = None
    difficulty: NDArray[np.float64] | None = None
    seconds: float = 0.0


class Teaching:
    """Runs the teacher in `workshop`; `untouched()` makes the untouched model, and is asked only where something is taught."""

    def __init__(self, workshop: Workshop, samples: Samples, untouched: Callable[[], Prefix]) -> None:
        self._workshop = workshop
        self._samples = samples
        self._untouched = untouched

    def teacher_of(self, settings: Mapping[str, Value]) -> str | None:
        """Hash of the task's own teacher where a training with `settings` is taught by it: part of the training's key."""
        return self._own_teacher if _distills(settings) or _ranks(settings) else None

    def lesson(self, settings: Mapping[str, Value], student: nn.Module) -> Lesson:
        """Return what a training of `student` with `settings` needs.

        Raises:
            InfeasibleRecipeError: a distillation cannot mean anything here; told before a teacher is run or an epoch paid for.
        """
        distills, ranks = _distills(settings), _ranks(settings)
        if distills:
            self._check_distillation(student, str(settings["distill.loss"]))
        if not distills and not ranks:
            return Lesson()
        teacher = self._teacher if distills else None
        difficulty = self._difficulty if ranks else None
        return Lesson(teacher, difficulty, self._seconds(settings, ranks=ranks))

    @cached_property
    def logits(self) -> Entry:
        """The stage that ran the teacher."""
        key = self._workshop.key(self._untouched().key, "teacher", {"own": self._own_teacher})

        def make(folder: Path) -> None:
            workshop = self._workshop
            with seeded(workshop.seed):
                logits = teacher_logits(self._model, workshop.task, gate=workshop.working, stop=workshop.stop)
            if logits is not None:
                torch.save(logits, folder / "logits.pt")

        return self._workshop.stage(key, "teacher", "logits", make, "training")

    def _check_distillation(self, student: nn.Module, loss: str) -> None:
        with self._workshop.working(), torch.inference_mode():
            check_distillation(loss, self._workshop.task.kind, call(student, self._samples.serving_inputs(2)))

    def _seconds(self, settings: Mapping[str, Value], *, ranks: bool) -> float:
        """What a training owes to its teacher: running it, ranking by it and, where nothing else paid for it, training it."""
        seconds = self.logits.seconds + (self._ranking.seconds if ranks else 0.0)
        untrained_teacher = settings.get("train.start") == "scratch" and self._workshop.task.teacher is None
        return seconds + (self._untouched().train_seconds if untrained_teacher else 0.0)

    @cached_property
    def _own_teacher(self) -> str | None:
        with self._workshop.working():
            return self._workshop.task.teacher_hash

    @cached_property
    def _model(self) -> nn.Module:
        with self._workshop.working():
            return self._workshop.task.build_teacher() or self._untouched().model

    @cached_property
    def _teacher(self) -> Teacher:
        saved = self.logits.folder / "logits.pt"
        return Teacher(self._model, torch.load(saved, weights_only=True) if saved.exists() else None)

    @cached_property
    def _ranking(self) -> Entry:
        teacher = self._teacher
        key = self._workshop.key(self._untouched().key, "difficulty", {"own": self._own_teacher})

        def make(folder: Path) -> None:
            with self._workshop.working(), seeded(self._workshop.seed):
                np.save(folder / "difficulty.npy", score_difficulty(teacher, self._workshop.task))

        return self._workshop.stage(key, "difficulty", "teacher loss", make, "training")

    @cached_property
    def _difficulty(self) -> NDArray[np.float64]:
        return np.load(self._ranking.folder / "difficulty.npy", allow_pickle=False)  # type: ignore[no-any-return]


def _distills(settings: Mapping[str, Value]) -> bool:
    return settings["distill.loss"] != "none"


def _ranks(settings: Mapping[str, Value]) -> bool:
    """Whether the training's curriculum orders examples by the teacher's loss."""
    order = orders.method(str(settings.get("curriculum.order", DEFAULTS["curriculum.order"])))
    return settings["curriculum.schedule"] != "none" and bool(order.options.needs_difficulty)
