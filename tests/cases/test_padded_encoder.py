"""An encoder with a padding mask: in eval mode torch takes a fast path through nested tensors, which no exporter knows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autocut.stages import lowering
from autocut.task.batches import call

WORDS, LENGTH = 30, 10


class Intents(nn.Module):
    """Token ids (n, 10) and their mask -> three classes, read at the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, 16), nn.Parameter(torch.randn(LENGTH, 16) * 0.02)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True), 2)
        self.out = nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Padding is not attended to."""
        states = self.encoder(self.words(input_ids) + self.places, src_key_padding_mask=attention_mask == 0)
        return self.out(states[:, 0])


@pytest.mark.parametrize("mode", ["eager", "onnxruntime"])
def test_a_padded_batch_gets_the_answers_of_the_eager_model(mode, tmp_path):
    """The graph does not have the fast path, and other batches have other padding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Intents().eval()
        ids = torch.randint(1, WORDS, (12, LENGTH))
    mask = (torch.arange(LENGTH) < torch.arange(1, 13)[:, None].clamp(max=LENGTH)).long()
    batches = [{"input_ids": ids[part] * mask[part], "attention_mask": mask[part]} for part in (slice(0, 8), slice(8, 12))]

    lowering.lower(model, "fp32", mode, batches[:1], tmp_path)
    predict = lowering.load(tmp_path, mode)

    for batch in batches:
        torch.testing.assert_close(predict(batch), call(model, batch), rtol=1e-4, atol=1e-5)
