"""Train: recover the accuracy that pruning cost, with a curriculum that saves samples and a teacher that adds to the labels.

`train_model` trains. Its methods are in `curricula`, `orders`, `distillations`, `feature_losses`, `fake_quantizers` and
`input_growths`; `registries` says how to write one.
"""

from __future__ import annotations

import sys

from autocut.registry import import_all
from autocut.stages.device import CPU, Device
from autocut.stages.train.checkpoint import epochs_in
from autocut.stages.train.distillation import check_distillation, kind_as_used, sample_answers
from autocut.stages.train.fastest import fastest_way
from autocut.stages.train.ordering import score_difficulty
from autocut.stages.train.plan import planned_sizes
from autocut.stages.train.registries import (
    curricula,
    distillations,
    fake_quantizers,
    feature_losses,
    input_growths,
    orders,
)
from autocut.stages.train.speed import Speed
from autocut.stages.train.teacher import Teacher, teacher_logits
from autocut.stages.train.trainer import Epoch, EpochRecord, Trained, sample_seconds, train_model

__all__ = [
    "CPU",
    "Device",
    "Epoch",
    "EpochRecord",
    "Speed",
    "Teacher",
    "Trained",
    "check_distillation",
    "curricula",
    "distillations",
    "epochs_in",
    "fake_quantizers",
    "fastest_way",
    "feature_losses",
    "input_growths",
    "kind_as_used",
    "orders",
    "planned_sizes",
    "sample_answers",
    "sample_seconds",
    "score_difficulty",
    "teacher_logits",
    "train_model",
]

import_all(sys.modules[__name__])
