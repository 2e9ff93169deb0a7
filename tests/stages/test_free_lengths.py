"""Sequences of free length: an artifact takes every length that the model takes, and refuses what it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages import lowering
from autocut.stages.graph import SIGNATURE_FILE, Signature
from autocut.task.batches import call

LENGTH = {"ids": {1: "length"}, "mask": {1: "length"}}
COMPILED = ("torch_compile", "torch_compile_max_autotune")
PAIRS = [
    pytest.param(*pair, marks=pytest.mark.slow if pair[1] == "aot_inductor" else ())
    for pair in lowering.pairs()
    if lowering.infeasible_reason(*pair) is None and pair[1] not in COMPILED
]


class Reader(nn.Module):
    """A padded encoder with 16 positions: token ids and their mask, (n, length) each -> (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 32), nn.Parameter(torch.randn(16, 32) * 0.1)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
        self.out = nn.Linear(32, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """In eval mode torch takes its fast path through nested tensors."""
        states = self.encoder(self.words(ids) + self.places[: ids.shape[1]], src_key_padding_mask=mask == 0)
        return self.out(states[:, 0])


def batch(count: int, length: int) -> dict[str, Tensor]:
    """Random texts; all but the first are padded at the end."""
    ids, mask = torch.randint(1, 20, (count, length)), torch.ones(count, length, dtype=torch.long)
    if length > 2:
        mask[1:, -1] = 0
    return {"ids": ids * mask, "mask": mask}


@pytest.fixture(name="reader")
def _reader() -> nn.Module:
    """Seeded by the fixture of this folder."""
    return Reader().eval()


@pytest.mark.parametrize(("dtype", "mode"), PAIRS)
def test_an_artifact_answers_at_every_length_like_the_model(dtype, mode, reader, tmp_path):
    """At lengths between and beyond those of calibration, at length 1, and in batches that were not compiled for."""
    lowering.lower(reader, dtype, mode, [batch(16, length) for length in (12, 5, 1)], tmp_path, dynamic=LENGTH)
    predict = lowering.load(tmp_path, mode)
    close = -1.0 if dtype == "int8_static" else 0.95  # fixed scales of random weights lose single answers

    for count, length in ((1, 12), (1, 1), (3, 7), (40, 16), (16, 5)):
        inputs = batch(count, length)
        answer = predict(inputs)
        assert answer.shape == (count, 3)
        assert torch.cosine_similarity(answer, call(reader, inputs)).min() > close, (count, length)


class Tagger(Reader):
    """An answer for each token: (n, length) -> (n, length, 3)."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Scores of all positions."""
        return self.out(self.encoder(self.words(ids) + self.places[: ids.shape[1]], src_key_padding_mask=mask == 0))


@pytest.mark.parametrize("dtype", ["int8_static", "int8_dynamic", "int8_weight_only", "int4_weight_only"])
def test_a_quantizer_takes_answers_of_several_lengths(dtype, tmp_path):
    """Outputs of batches that differ in length are compared, too, where a quantizer looks for sensitive layers."""
    tagger = Tagger().eval()
    lowering.lower(tagger, dtype, "onnxruntime", [batch(16, length) for length in (12, 5, 1)], tmp_path, dynamic=LENGTH)
    answer = lowering.load(tmp_path, "onnxruntime")(batch(3, 7))

    assert answer.shape == (3, 7, 3)


@pytest.mark.parametrize("mode", COMPILED)
def test_a_mode_of_known_sizes_is_infeasible(mode, reader, tmp_path):
    """It would compile again at every length."""
    if reason := lowering.infeasible_reason("fp32", mode):
        pytest.skip(reason)
    with pytest.raises(InfeasibleRecipeError, match="dynamic= leaves length free"):
        lowering.lower(reader, "fp32", mode, [batch(8, 12)], tmp_path, dynamic=LENGTH)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (batch(2, 17), "length must be 1 or more, up to 16, got 17"),
        ({**batch(2, 9), "mask": torch.ones(2, 8, dtype=torch.long)}, r"mask must be int64 of shape \(n, length\) with length 9"),
        ({"ids": torch.zeros(2, 9, 1, dtype=torch.long), "mask": torch.ones(2, 9, dtype=torch.long)}, "ids must be int64 of shape"),
    ],
)
def test_what_the_model_cannot_take_is_refused(inputs, message, reader, tmp_path):
    """Machine code checks nothing: the limits come from the model's own code."""
    lowering.lower(reader, "fp32", "eager", [batch(8, 12)], tmp_path, dynamic=LENGTH)

    with pytest.raises(ValueError, match=message):
        lowering.load(tmp_path, "eager")(inputs)


def test_a_signature_of_fixed_shapes_is_written_as_it_always_was(tmp_path):
    """Old files are read, and old versions read new files of models without free dimensions."""
    signature = Signature.of(batch(4, 9))
    signature.write(tmp_path)

    assert "limits" not in (tmp_path / SIGNATURE_FILE).read_text()
    assert Signature.read(tmp_path) == signature


def test_a_signature_keeps_names_and_limits(reader, tmp_path):
    """Both come back from the file."""
    lowering.lower(reader, "fp32", "eager", [batch(8, 12)], tmp_path, dynamic=LENGTH)
    signature = Signature.read(tmp_path)

    assert signature.shapes == ((None, "length"), (None, "length"))
    assert signature.limits == {"length": (1, 16)}
