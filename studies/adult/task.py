"""Adult: does a person earn more than 50,000 dollars a year? A table of numbers and categories, and a network of three layers."""

from __future__ import annotations

from collections.abc import Iterable

import data
import torch
from torch import Tensor, nn

from autocut import Task

_WIDTH = 256
_EMBEDDED = 8


class Network(nn.Module):
    """Embeds each category, then three linear layers; about 150,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        counts = [len(values) + 1 for values in data.categories().values()]
        self.embeddings = nn.ModuleList(nn.Embedding(count, _EMBEDDED) for count in counts)
        self.layers = nn.Sequential(
            nn.Linear(len(data.NUMBERS) + _EMBEDDED * len(counts), _WIDTH), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(_WIDTH, _WIDTH), nn.ReLU(),
            nn.Linear(_WIDTH, 2),
        )  # fmt: skip

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Logits (n, 2) of standardised numbers (n, 5) and codes of categories (n, 7)."""
        embedded = [embedding(codes[:, at]) for at, embedding in enumerate(self.embeddings)]
        return self.layers(torch.cat([numbers, *embedded], dim=1))


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, learning rate 1e-3."""
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-3)


task = Task(
    name="adult",
    model=Network,
    train=data.train,
    test=data.test,
    kind="classification",
    batch_size=256,
    epochs=5,
    optimizer=optimizer,
    serving_batch_sizes=(1, 32),
    pretrained=False,
)
