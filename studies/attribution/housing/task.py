"""California housing: what is a house worth? A table of 20,640 districts, and a network of three layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from autocut.tasks.data_files import DataFile
from autocut.tasks.tables import Columns, from_dataframe

_COMMIT = "1e2115277b50f6c584cd668fa30e3af309a5b136"
_URL = f"https://github.com/ageron/handson-ml2/raw/{_COMMIT}/datasets/housing/housing.csv"
_SHA256 = "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e"
_PUBLISHED = DataFile("tab_california_housing", "housing.csv", _URL, _SHA256)
_COMPRESSED = DataFile("tab_california_housing", "housing.csv.gz", _URL, _SHA256)
_WIDTH = 256
_SKEWED = ("total_rooms", "total_bedrooms", "population", "households", "median_income", "median_house_value")


class Network(nn.Module):
    """Embeds the one coded column, then three linear layers; about 140,000 parameters."""

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self.embedding = nn.Embedding(next(iter(columns.categories.values())), 4)
        self.layers = nn.Sequential(
            nn.Linear(len(columns.numbers) + 4, _WIDTH), nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH), nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH), nn.ReLU(),
            nn.Linear(_WIDTH, 1),
        )  # fmt: skip

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Logarithm of the value, shape (n,)."""
        return self.layers(torch.cat([numbers, self.embedding(codes[:, 0])], dim=1)).squeeze(1)


def read_districts() -> pd.DataFrame:
    """The 20,433 districts without a missing value. Counts, incomes and values are logarithms: a few districts have huge ones."""
    found = _COMPRESSED.find() or _PUBLISHED.fetch()
    frame = pd.read_csv(found).dropna()
    return frame.assign(**{column: np.log(frame[column]) for column in _SKEWED})


task = from_dataframe(
    read_districts(), "median_house_value", Network, name="housing", kind="regression", batch_size=256, epochs=20,
    optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3), serving_batch_sizes=(1, 32), pretrained=False,
)  # fmt: skip
