"""GPT-2 small: 124 million weights, a vocabulary of 50,257, the next token of 128. The weights are random."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

from autocut import Task

LENGTH, VOCABULARY = 128, 50_257


class Tokens(Dataset):
    """Made-up sequences."""

    def __init__(self, seed: int, count: int) -> None:
        self.ids = torch.randint(0, VOCABULARY, (count, LENGTH + 1), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return a sequence and the token after each of its tokens."""
        return {"input_ids": self.ids[index, :-1]}, self.ids[index, 1:]


def model() -> nn.Module:
    """Build it from its configuration, without the cache of earlier tokens."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(use_cache=False))


task = Task(
    name="gpt2", model=model, pretrained=True,
    train=lambda: Tokens(0, 64), validation=lambda: Tokens(1, 64), test=lambda: Tokens(2, 64),
    kind="language_modeling", batch_size=8, epochs=1, serving_batch_sizes=(1, 4),
)  # fmt: skip
