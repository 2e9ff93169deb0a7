"""What does a request ask for? A small BERT, built by transformers from a configuration and trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable

import data
import torch
from torch import nn

from autocut.errors import MissingDependencyError
from autocut.tasks.texts import from_transformers

try:
    from transformers import BertConfig, BertForSequenceClassification
except ImportError as error:
    raise MissingDependencyError("studies/snips needs transformers", "pip install transformers") from error


def small_bert() -> BertForSequenceClassification:
    """Four layers of width 128 with four heads; 1.3 million parameters."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=data.WORDS, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
            max_position_embeddings=data.LONGEST, num_labels=len(data.intents()),
        )
    )  # fmt: skip


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, learning rate 1e-3."""
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)


task = from_transformers(
    small_bert, data.tokenizer(), {"train": data.train, "validation": data.validation, "test": data.test},
    name="snips", max_length=data.LONGEST, batch_size=64, epochs=3, optimizer=optimizer, serving_batch_sizes=(1, 32),
    pretrained=False,
)  # fmt: skip
