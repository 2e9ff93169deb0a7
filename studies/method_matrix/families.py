"""The families of models that the matrix measures, each by the task of a study, and how much of its data is used.

Every training of a family has the same bound, that of the untouched model included: `examples` of its training data. A change that
trains does so for `epochs` more epochs. The accuracy is that of `scored` validation examples. None means all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from torch.utils.data import Subset

from autocut.task.loading import load_task
from autocut.task.splits import Examples, length, spread
from autocut.task.task import Task

STUDIES = Path(__file__).parents[1]
BATCH_SIZES = (1, 32)


@dataclass(frozen=True)
class Family:
    """One family: `study` is the folder of its task, `title` says what it stands for."""

    name: str
    title: str
    study: str
    epochs: int
    examples: int | None = None
    scored: int | None = None

    @property
    def bound(self) -> str:
        """How a change of this family is trained and scored, in words: rows of another bound are other rows."""
        word = "epoch" if self.epochs == 1 else "epochs"
        return f"{self.epochs} {word} of {self.examples or 'all'} examples, {self.scored or 'all'} scored"


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family("adult", "tabular classification", "adult", epochs=2),
            Family("housing", "tabular regression", "attribution/housing", epochs=2),
            Family("stories260k", "causal language model, published weights", "stories260k", epochs=1),
            Family("snips", "transformer text classifier", "snips", epochs=1, examples=6_000),
            Family("fashion_mnist", "convolutional network", "fashion_mnist", epochs=1, examples=12_000, scored=2_500),
            Family(
                "cifar10_resnet20",
                "residual network, published weights",
                "cifar10_resnet20",
                epochs=1,
                examples=4_000,
                scored=2_500,
            ),
        )
    }
)
"""Those that take seconds first."""


def read_task(family: Family) -> Task:
    """Return the task of `family`, with as much of its data as the family uses, and with the batch sizes of the matrix.

    Raises:
        AutocutError: the task, a package of it or its data is missing.
    """
    task = load_task(STUDIES / family.study / "task.py")
    return replace(
        task,
        train=_part(task.train_data, family.examples),
        validation=_part(task.validation_data, family.scored),
        serving_batch_sizes=BATCH_SIZES,
    )


def _part(examples: Examples, limit: int | None) -> Examples:
    """Return `limit` of the examples, evenly spread."""
    return examples if limit is None else Subset(examples, spread(length(examples), limit).tolist())
