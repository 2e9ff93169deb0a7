"""BERT-base: 110 million weights, sequences of 128 tokens, inputs by name. The weights are random: their number is what matters."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification

from autocut import Task

LENGTH, WORDS = 128, 30_000


class Texts(Dataset):
    """Made-up texts with one of two labels."""

    def __init__(self, seed: int, count: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(5, WORDS, (count, LENGTH), generator=generator)
        self.labels = torch.randint(0, 2, (count,), generator=generator)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return a text of full length and its label."""
        return {"input_ids": self.ids[index], "attention_mask": torch.ones(LENGTH, dtype=torch.long)}, self.labels[index]


def model() -> nn.Module:
    """Build it from its configuration."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(num_labels=2))


task = Task(
    name="bert-base", model=model, pretrained=True,
    train=lambda: Texts(0, 256), validation=lambda: Texts(1, 256), test=lambda: Texts(2, 256),
    kind="classification", batch_size=16, epochs=1, serving_batch_sizes=(1, 8),
)  # fmt: skip
