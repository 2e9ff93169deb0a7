"""What a training needs from its teacher: logits to distill from, difficulties that order its examples, and the seconds of both.

The teacher is the task's own or the untouched model. It runs once for all trainings, in a stage of its own; so does the ranking of
the examples by its loss.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Facts, Stage, StageRunner, charged_s
from autocut.recipe import Recipe
from autocut.registry import Method
from autocut.stages.model_files import Prefix
from autocut.stages.train import CPU, Teacher, check_distillation, orders, sample_answers, score_difficulty, teacher_logits
from autocut.stages.train.plan import DEFAULTS
from autocut.stages.train.registries import Order, OrderOptions
from autocut.task.task import seeded

_LOGITS, _DIFFICULTY = "logits.pt", "difficulty.npy"


@dataclass(frozen=True)
class TeacherOutputs:
    """What one training gets from its teacher; None where it needs nothing. `seconds` is what it is charged for it (`charged_s`).

    `difficulty` is the teacher's loss on each training example, shape (n,).
    """

    teacher: Teacher | None = None
    difficulty: NDArray[np.float64] | None = None
    seconds: float = 0.0


class TeacherStages:
    """Runs the teacher; `untouched()` returns the untouched model, and is called only when a training needs a teacher."""

    def __init__(self, runner: StageRunner, untouched: Callable[[], Prefix]) -> None:
        self._runner = runner
        self._untouched = untouched

    def own_teacher_of(self, recipe: Recipe) -> str | None:
        """Return the hash of the task's own teacher if the training of `recipe` needs a teacher: a part of the training's key."""
        return self._own_teacher if recipe.changes("distill.loss") or _ranks(recipe) else None

    def outputs_for(self, recipe: Recipe, student: nn.Module) -> TeacherOutputs:
        """Return what the training of `student` as in `recipe` needs from the teacher.

        Raises:
            InfeasibleRecipeError: the distillation cannot mean anything here. Checked before the teacher runs.
        """
        distills, ranks, task = recipe.changes("distill.loss"), _ranks(recipe), self._runner.context.task
        if distills:
            with self._runner.working():
                check_distillation(str(recipe["distill.loss"]), task.kind, *sample_answers(student, task))
        if not distills and not ranks:
            return TeacherOutputs()
        stages = (self.logits, self._ranking) if ranks else (self.logits,)
        seconds = math.fsum(charged_s(stage, self._runner.context.threads) for stage in stages)
        if not recipe.starts_trained and task.teacher is None:
            seconds += self._untouched().train_seconds  # this training does not start from it, so its cost is charged here
        difficulty = np.load(self._ranking.folder / _DIFFICULTY, allow_pickle=False) if ranks else None
        return TeacherOutputs(self._teacher if distills else None, difficulty, seconds)

    @cached_property
    def logits(self) -> Entry:
        """Output of the stage that runs the teacher."""
        context = self._runner.context
        key = self._key("teacher")

        def make(folder: Path, _: None) -> Facts:
            with self._runner.training() as device, seeded(context.seed):
                logits = teacher_logits(self._model, context.task, gate=self._runner.working, stop=context.stop, device=device)
            if logits is not None:
                torch.save(logits, folder / _LOGITS)
            return self._runner.trained_on

        return self._runner.run(Stage("teacher", "logits", "training", key, lambda: None, make))

    @cached_property
    def _ranking(self) -> Entry:
        context = self._runner.context
        key = self._key("difficulty")

        def make(folder: Path, teacher: Teacher) -> Facts:
            runs_model = teacher.logits is None
            place = self._runner.training() if runs_model else contextlib.nullcontext(CPU)
            with place as device, self._runner.working(), seeded(context.seed):
                np.save(folder / _DIFFICULTY, score_difficulty(teacher.placed_on(device), context.task))
            return self._runner.trained_on if runs_model else {}

        return self._runner.run(Stage("difficulty", "teacher loss", "training", key, lambda: self._teacher, make))

    def _key(self, name: str) -> str:
        runner = self._runner
        return runner.key(self._untouched().key, name, {"own": self._own_teacher}, **runner.trained_on)

    @cached_property
    def _own_teacher(self) -> str | None:
        with self._runner.working():
            return self._runner.context.task.teacher_hash

    @cached_property
    def _model(self) -> nn.Module:
        with self._runner.working():
            return self._runner.context.task.build_teacher() or self._untouched().model

    @cached_property
    def _teacher(self) -> Teacher:
        saved = self.logits.folder / _LOGITS
        return Teacher(self._model, torch.load(saved, weights_only=True) if saved.exists() else None)


def order_of(recipe: Recipe) -> Method[Order, OrderOptions]:
    """Return the order in which examples come into use in the training of `recipe`."""
    return orders.method(str(recipe.get("curriculum.order", DEFAULTS["curriculum.order"])))


def _ranks(recipe: Recipe) -> bool:
    """Whether the curriculum of `recipe` orders examples by the teacher's loss."""
    return recipe.changes("curriculum.schedule") and bool(order_of(recipe).options.needs_difficulty)
