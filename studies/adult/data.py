"""Adult: people of a census, and whether they earn more than 50,000 dollars a year."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from autocut.tasks.data_files import DataFile

_URL = "https://github.com/jbrownlee/Datasets/raw/d20fcb6402ae34e653d4513b00f39257bb37ed7f"
_SHA256 = {
    "adult-train.csv": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult-test.csv": "72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074",
}
NUMBERS = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week")
CATEGORIES = ("workclass", "marital_status", "occupation", "relationship", "race", "sex", "native_country")
_COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race", "sex",
    "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
)  # fmt: skip
_SKEWED = ["capital_gain", "capital_loss"]
_MISSING = "?"

Example = dict[str, Tensor]


class People(Dataset[Example]):
    """Examples as mappings: `numbers` (5,), `codes` (7,) and `labels`, which is 1 for an income above 50,000 dollars."""

    def __init__(self, numbers: Tensor, codes: Tensor, labels: Tensor) -> None:
        self.parts = {"numbers": numbers, "codes": codes, "labels": labels}

    def __len__(self) -> int:
        """Number of people."""
        return len(self.parts["labels"])

    def __getitem__(self, index: int) -> Example:
        """One person."""
        return {name: part[index] for name, part in self.parts.items()}

    def fetch_batch(self, indices: Tensor) -> tuple[Example, Tensor]:
        """Whole batch: the inputs by name, and the classes."""
        return {name: self.parts[name][indices] for name in ("numbers", "codes")}, self.parts["labels"][indices]


def train() -> People:
    """The 32,561 official training examples; autocut takes its validation split from them."""
    return _people("adult-train.csv")


def test() -> People:
    """The 16,281 official test examples."""
    return _people("adult-test.csv")


@cache
def categories() -> dict[str, tuple[str, ...]]:
    """Sorted values of each coded column in the training file. One that is missing or new is coded as the number of them."""
    frame = _read("adult-train.csv")
    return {column: tuple(sorted(set(frame[column]) - {_MISSING})) for column in CATEGORIES}


def _people(name: str) -> People:
    frame, known = _read(name), _read("adult-train.csv")[list(NUMBERS)]
    numbers = ((frame[list(NUMBERS)] - known.mean()) / known.std()).to_numpy(np.float32)
    codes = [
        [values.index(value) if value in values else len(values) for value in frame[column]]
        for column, values in categories().items()
    ]
    labels = frame["income"].str.startswith(">50K").to_numpy(np.int64)
    return People(torch.from_numpy(numbers), torch.tensor(codes).T.contiguous(), torch.from_numpy(labels))


@cache
def _read(name: str) -> pd.DataFrame:
    """Read one file. Gains and losses are logarithms: a few people have huge ones."""
    frame = pd.read_csv(_find(name), header=None, names=list(_COLUMNS), skipinitialspace=True)
    return frame.assign(**{column: np.log1p(frame[column]) for column in _SKEWED})


def _find(name: str) -> Path:
    compressed = DataFile("tab_adult", f"{name}.gz", f"{_URL}/{name}", _SHA256[name])
    return compressed.find() or DataFile("tab_adult", name, f"{_URL}/{name}", _SHA256[name]).fetch()
