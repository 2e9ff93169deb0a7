"""Which examples each epoch sees, and how many: known before the first is read, so that cost and learning rate can be planned.

A curriculum counts samples. Its pacing function g gives the share of the data in use at progress = samples seen / samples planned.
It is called again for every batch, so even a training of one epoch begins with the share `start` and ends with all the data.

After an epoch, a checkpoint is written and the model is measured. Epoch e of E plans g's mean over [e/E, (e+1)/E] times the number
of examples: examples that are not in use cost nothing. A short training may not show every example, but its end draws from all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from autocut.recipe import IDENTITY, Value
from autocut.stages.train.ordering import EASY_FIRST
from autocut.stages.train.registries import curricula

DEFAULTS: Mapping[str, Value] = {
    "train.epochs": IDENTITY["train.epochs"],
    "train.lr_scale": 1.0,
    "curriculum.schedule": IDENTITY["curriculum.schedule"],
    "curriculum.order": EASY_FIRST,
    "curriculum.start": 0.5,
    "distill.loss": IDENTITY["distill.loss"],
    "distill.temperature": 4.0,
    "distill.alpha": 0.9,
}
"""Values of the settings that a recipe does not have."""

TRAINER_VERSION = 1
"""Part of every training's stage key: raise it when the trainer gives other weights for the same settings."""

WARM_UP = 0.05

MEAN_POINTS = 64
"""Moments of an epoch over which its share of the data is averaged."""

STEPS = 64
"""The pacing function is called at least so often in a training: a small data set has few batches."""


def planned_sizes(settings: Mapping[str, Value], examples: int, batch_size: int) -> tuple[int, ...]:
    """Return the number of samples that each epoch sees: never less than a batch, nor more than there are examples.

    A last batch of one example is left out, because batch normalization cannot train on it.
    """
    merged = {**DEFAULTS, **settings}
    epochs = int(merged["train.epochs"])
    means = [
        sum(_share(merged, (epoch + (point + 0.5) / MEAN_POINTS) / epochs) for point in range(MEAN_POINTS)) / MEAN_POINTS
        for epoch in range(epochs)
    ]
    return tuple(_without_single(_examples_in_use(mean, examples, batch_size), batch_size) for mean in means)


def is_changed(settings: Mapping[str, Value], name: str) -> bool:
    """Whether the setting `name`, which has a value for the untouched model, has another one here."""
    return settings[name] != IDENTITY[name]


def draw_epoch(
    number: int,
    settings: Mapping[str, Value],
    order: NDArray[np.int64],
    sizes: tuple[int, ...],
    batch_size: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw the examples of epoch `number` (from 1), in the order in which they are shown.

    Without a curriculum that is a permutation. With one, each piece of at most a batch is drawn uniformly from the examples in use
    (the first of `order`) that the epoch has not shown yet. If too few are left, all in use are drawn from again. The number in use
    at each sample follows from the plan alone, so it is the same for an order and its random control.

    Args:
        number: The epoch, from 1.
        settings: ``curriculum.*``; what is missing comes from `DEFAULTS`.
        order: Every training example, in the order in which they come into use.
        sizes: What `planned_sizes` gave.
        batch_size: The task's.
        generator: Of this epoch alone.

    Returns:
        Indices, shape (sizes[number - 1],).

    References:
        Wu et al. 2021, algorithm 1, https://arxiv.org/abs/2012.03107
    """
    merged = {**DEFAULTS, **settings}
    size, planned, before = sizes[number - 1], sum(sizes), sum(sizes[: number - 1])
    if not is_changed(merged, "curriculum.schedule"):
        # Shuffled before it is cut to size, so that the example that is left out is not always the last one.
        return generator.permutation(order)[:size]
    largest = max(1, min(batch_size, planned // STEPS))
    waiting, in_use = order[:0], 0
    drawn: list[NDArray[np.int64]] = []
    for start in range(0, size, largest):
        wanted = min(largest, size - start)
        grown = _examples_in_use(_share(merged, (before + start + wanted / 2) / planned), len(order), batch_size)
        waiting, in_use = np.concatenate([waiting, order[in_use:grown]]), grown
        if len(waiting) < wanted:
            drawn.append(generator.permutation(waiting))
            wanted -= len(waiting)
            waiting = order[:in_use]
        chosen = generator.choice(len(waiting), wanted, replace=False)
        drawn.append(waiting[chosen])
        waiting = np.delete(waiting, chosen)
    return np.concatenate(drawn)


def learning_rate_factor(samples_seen: int, planned: int) -> float:
    """Factor on the learning rate: a linear warm-up over 5% of the planned samples, then a cosine down to 0.

    It counts samples, because a curriculum changes the number of steps and of epochs.
    """
    progress = min(1.0, samples_seen / max(planned, 1))
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def _share(settings: Mapping[str, Value], progress: float) -> float:
    return curricula[str(settings["curriculum.schedule"])](progress, float(settings["curriculum.start"]))


def _examples_in_use(share: float, examples: int, batch_size: int) -> int:
    """At least a batch, which fewer examples could fill only by showing one of them twice."""
    return max(min(examples, batch_size), round(share * examples))


def _without_single(size: int, batch_size: int) -> int:
    return size - 1 if size > 1 and size % batch_size == 1 else size
