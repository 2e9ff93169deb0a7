"""The three registries of training methods; a method is one function in one file of this folder.

`curricula` (``curriculum.schedule``): ``f(progress, start) -> fraction`` of the training data in use; progress is samples seen of
those planned, in [0, 1], and 0 < start <= 1.

`orders` (``curriculum.order``): ``f(difficulty, generator) -> indices``, the order in which examples come into use; the option
`needs_difficulty` tells whether the first argument matters or only its length does.

`distillations` (``distill.loss``): ``f(student_logits, teacher_logits, temperature) -> scalar``; the option `kinds` names the kinds
of task that it fits, `classes` the fewest classes that it can tell apart, where it takes logits for a distribution.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autocut.registry import Registry

Pacing = Callable[[float, float], float]
Order = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.int64]]
Distillation = Callable[[Tensor, Tensor, float], Tensor]

curricula: Registry[Pacing] = Registry("curriculum.schedule")
orders: Registry[Order] = Registry("curriculum.order")
distillations: Registry[Distillation] = Registry("distill.loss")
