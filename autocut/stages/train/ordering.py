"""The order in which examples come into use, and how difficult each example is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from autocut.recipe import IDENTITY, Value
from autocut.stages.train.registries import orders
from autocut.stages.train.teacher import Teacher
from autocut.task.batches import batch_length
from autocut.task.task import Task

EASY_FIRST = "easy_first"
"""The order where a recipe has a curriculum and names none."""


@orders.register(EASY_FIRST, needs_difficulty=True)
def order_easy_first(difficulty: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:  # noqa: ARG001
    """Bring the examples with the smallest teacher loss into use first; ties keep the order of the data set."""
    return np.argsort(difficulty, kind="stable")


@orders.register("random", needs_difficulty=False)
def order_random(difficulty: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Bring the examples into use in a fixed random order: the control with equally many samples seen at every moment."""
    return generator.permutation(len(difficulty))


@torch.no_grad()
def score_difficulty(teacher: Teacher, task: Task) -> NDArray[np.float64]:
    """Return the teacher's loss on each training example.

    The task's loss is called with one example at a time, because for a batch its contract is only the mean.

    Returns:
        Shape (n,), higher is more difficult. An example whose loss is not finite counts as the most difficult.
    """
    losses: list[float] = []
    for inputs, targets in task.loader(task.train_data, task.batch_size):
        indices = torch.arange(len(losses), len(losses) + batch_length(inputs))
        logits = teacher.logits_for(inputs, indices).cpu()
        losses += [float(task.metric_kind.loss(logits[row : row + 1], targets[row : row + 1])) for row in range(len(targets))]
    difficulty = np.array(losses, dtype=np.float64)
    difficulty[~np.isfinite(difficulty)] = np.inf
    return difficulty


def planned_order(
    settings: Mapping[str, Value], examples: int, difficulty: NDArray[np.float64] | None, seed: int
) -> NDArray[np.int64]:
    """Return the order in which the examples of a training come into use; without a curriculum that of the data set."""
    if settings["curriculum.schedule"] == IDENTITY["curriculum.schedule"]:
        return np.arange(examples)
    method = orders.method(str(settings["curriculum.order"]))
    if difficulty is None and method.options.needs_difficulty:
        raise ValueError(f"curriculum.order {method.name!r} needs the difficulty of each example")
    if difficulty is not None and len(difficulty) != examples:
        raise ValueError(f"difficulty must have one number an example, {examples}, got {len(difficulty)}")
    return method.function(np.zeros(examples) if difficulty is None else difficulty, np.random.default_rng([seed]))
