"""How many examples each epoch sees: known before the first one is read, so that cost and learning rate can be planned."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autocut.recipe import Value
from autocut.stages.train.registries import curricula

DEFAULTS: Mapping[str, Value] = {
    "train.epochs": 0,
    "train.lr_scale": 1.0,
    "curriculum.schedule": "none",
    "curriculum.order": "easy_first",
    "curriculum.start": 0.5,
    "distill.loss": "none",
    "distill.temperature": 4.0,
    "distill.alpha": 0.9,
}
"""What training does where the recipe says nothing."""

TRAINER_VERSION = 1
"""Part of every training's stage key: raise it when the trainer gives other weights for the same settings."""

WARM_UP = 0.05


def planned_sizes(settings: Mapping[str, Value], examples: int, batch_size: int) -> tuple[int, ...]:
    """Return the number of examples that each epoch sees.

    Epoch e of E uses the share that the schedule gives at its middle, (e + 1/2) / E, and sees each example of it once. A last batch
    of one example is left out, because batch normalization cannot train on it.
    """
    merged = {**DEFAULTS, **settings}
    pace = curricula[str(merged["curriculum.schedule"])]
    epochs, start = int(merged["train.epochs"]), float(merged["curriculum.start"])
    shares = [pace((epoch + 0.5) / epochs, start) for epoch in range(epochs)]
    return tuple(_without_single(max(min(examples, batch_size), round(share * examples)), batch_size) for share in shares)


def learning_rate_factor(samples_seen: int, planned: int) -> float:
    """Factor on the learning rate: a linear warm-up over 5% of the planned samples, then a cosine down to 0.

    It counts samples, not steps or epochs, because a curriculum changes how many there are of both.
    """
    progress = min(1.0, samples_seen / max(planned, 1))
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def _without_single(size: int, batch_size: int) -> int:
    return size - 1 if size > 1 and size % batch_size == 1 else size
