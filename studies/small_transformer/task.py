"""What does a short text ask for? A small transformer, trained from scratch for 8 epochs, as people write it."""

from __future__ import annotations

from collections.abc import Iterable

import data
import torch
from torch import Tensor, nn

from autocut import Task

WIDTH = 128
LAYERS = 5


class TextClassifier(nn.Module):
    """An encoder of 5 layers over at most 32 words; 1.4 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(data.WORDS, WIDTH, padding_idx=0)
        self.positions = nn.Parameter(torch.zeros(1, data.LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, nhead=4, dim_feedforward=4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.classifier = nn.Linear(WIDTH, data.INTENTS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (n, 150) of word ids (n, 32), in which 0 is padding."""
        is_padding = tokens == 0
        encoded = self.encoder(self.words(tokens) + self.positions, src_key_padding_mask=is_padding)
        counts = (~is_padding).unsqueeze(-1).to(encoded.dtype)
        return self.classifier((encoded * counts).sum(1) / counts.sum(1))


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, learning rate 1e-3."""
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)


task = Task(
    name="small_transformer",
    model=TextClassifier,
    train=data.train,
    validation=data.validation,
    test=data.test,
    kind="classification",
    batch_size=32,
    epochs=8,
    optimizer=optimizer,
    serving_batch_sizes=(1, 32),
    pretrained=False,
)
