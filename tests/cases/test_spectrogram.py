"""A spectrogram inside the model: its numbers are complex, which not every runtime can hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autocut.stages import lowering
from autocut.stages.graph import load_graph


class WaveNet(nn.Module):
    """Waves (n, 512) -> three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.look, self.out = nn.Conv1d(33, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, wave: Tensor) -> Tensor:
        """Classify the logarithm of the power."""
        spectrum = torch.stft(wave, 64, hop_length=32, window=self.window, center=True, return_complex=True)
        return self.out(torch.relu(self.look(torch.log(spectrum.abs().square() + 1e-4))).mean(2))


@pytest.fixture(name="model")
def _model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WaveNet().eval()


WAVES = torch.randn(4, 512, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mode", ["eager", "onnxruntime"])
def test_the_spectrogram_is_part_of_the_artifact(mode, model, tmp_path):
    """The raw wave is what a server gets."""
    lowering.lower(model, "fp32", mode, [WAVES], tmp_path)

    torch.testing.assert_close(lowering.load(tmp_path, mode)(WAVES), model(WAVES), rtol=1e-3, atol=1e-4)


def test_half_precision_leaves_the_spectrogram_alone(model, tmp_path, monkeypatch):
    """There is no complex number of two halves of 16 bits, but the layers behind it compute in 16 bits, simulated if need be."""
    monkeypatch.setattr(lowering, "require_feasible", lambda *_: None)
    lowering.lower(model, "bf16", "eager", [WAVES], tmp_path)
    graph = load_graph(tmp_path).graph

    halves = [node for node in graph.nodes if "val" in node.meta and getattr(node.meta["val"], "dtype", None) is torch.bfloat16]
    assert {"conv1d", "linear"} <= {str(node.target).split(".")[1] for node in halves if node.op == "call_function"}
    assert torch.cosine_similarity(lowering.load(tmp_path, "eager")(WAVES), model(WAVES)).min() > 0.999
