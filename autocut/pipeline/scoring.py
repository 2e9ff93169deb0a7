"""Scores models on a whole split, in a stage of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autocut.measure.accuracy import Scores, score_model
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Stage, StageRunner
from autocut.stages.lowering import Predict
from autocut.task.batches import Inputs, call
from autocut.task.splits import Examples
from autocut.task.task import Task

_FILE = "scores.npz"


def run_eagerly(model: nn.Module) -> Predict:
    """Return the function that runs `model` operator by operator."""

    def predict(inputs: Inputs) -> Tensor:
        with torch.inference_mode():
            return call(model, inputs)

    return predict


def score(predict: Predict, task: Task, examples: Examples) -> Scores:
    """Score every one of `examples`.

    Raises:
        DivergedError: an output or a score is not a number.
    """
    return score_model(predict, task.loader(examples, task.batch_size), task.metric_kind)


def scores_stage(
    runner: StageRunner,
    parent: str,
    method: str,
    settings: Mapping[str, Any],
    *,
    load: Callable[[], Predict],
    examples: Callable[[], Examples],
) -> Stage[Predict]:
    """Return the stage that scores the model of stage `parent` on `examples()`.

    `load()` returns what runs the model. It ends before the stage begins: compiling is not charged to measuring.
    """

    def make(folder: Path, predict: Predict) -> None:
        with runner.working():
            scores = score(predict, runner.context.task, examples())
        np.savez(folder / _FILE, scores=scores.scores, targets=scores.targets)

    return Stage("accuracy", method, "measuring", runner.key(parent, "accuracy", settings), load, make)


def read_scores(entry: Entry) -> Scores:
    """Read what a scores stage wrote."""
    with np.load(entry.folder / _FILE, allow_pickle=False) as saved:
        return Scores(saved["scores"], saved["targets"])
