"""Networks whose channels are reordered or gated: what pruning removes must be what a network with silent channels lacks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.stages import lowering
from autocut.stages.prune import PruneData, pruners


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.narrow, self.widen = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Every channel times its gate."""
        return x * functional.hardsigmoid(self.widen(torch.relu(self.narrow(self.squeeze(x)))))


class Inverted(nn.Module):
    """An inverted residual block: expand, depthwise, gate, project."""

    def __init__(self, narrow: int, inner: int, wide: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(narrow, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.Hardswish(),
            nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.Hardswish(),
            Gate(inner), nn.Conv2d(inner, wide, 1, bias=False), nn.BatchNorm2d(wide),
        )  # fmt: skip
        self.is_residual = narrow == wide

    def forward(self, x: Tensor) -> Tensor:
        """Residual where the widths agree."""
        return x + self.layers(x) if self.is_residual else self.layers(x)


class ClothesNet(nn.Module):
    """uint8 pictures (n, 12, 12, 1), channels last, which it normalizes itself -> three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.blocks = nn.Sequential(Inverted(8, 16, 12), Inverted(12, 24, 12))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 16), nn.Hardswish(), nn.Linear(16, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Scale, then classify."""
        pixels = images.permute(0, 3, 1, 2).float() / 255
        return self.head(self.blocks(self.stem((pixels - 0.3) / 0.35)))


class DenseBlock(nn.Module):
    """Grouped convolutions behind a channel shuffle, and dense concatenation."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.mix, self.look = nn.Conv2d(width, growth, 1), nn.Conv2d(growth, growth, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> (n, width + growth, h, w)."""
        mixed = torch.relu(self.mix(x))
        count, channels, height, width = mixed.shape
        shuffled = mixed.view(count, 4, channels // 4, height, width).transpose(1, 2).reshape(count, channels, height, width)
        return torch.cat([x, torch.relu(self.look(shuffled))], dim=1)


class Doubler(nn.Module):
    """Twice the resolution by nn.PixelShuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 8, 3, padding=1), nn.Sequential(DenseBlock(8, 8), DenseBlock(16, 8))
        self.widen, self.rise, self.out = nn.Conv2d(24, 32, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, small: Tensor) -> Tensor:
        """(n, 1, h, w) -> (n, 1, 2h, 2w)."""
        return self.out(self.rise(torch.relu(self.widen(self.blocks(torch.relu(self.stem(small)))))))


def built(kind: type[nn.Module]) -> nn.Module:
    """A model in eval mode with statistics, weights and biases that are all different."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind().eval()
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    value.add_(0.3 * torch.rand_like(value) if name.endswith("running_var") else 0.3 * torch.randn_like(value))
        return model


def silenced(model: nn.Module, pruned: nn.Module) -> nn.Module:
    """`model` with every channel silent that `pruned` lacks. Biases, all different, tell which channels are left."""
    silent, left = copy.deepcopy(model), dict(pruned.named_modules())
    for name, module in silent.named_modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            gone = ~torch.isin(module.bias, left[name].bias)
            with torch.no_grad():
                module.weight[gone] = 0
                module.bias[gone] = 0
    return silent


PICTURES = torch.randint(0, 256, (4, 12, 12, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
SMALL = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))
CASES = {
    "gates and depthwise": (ClothesNet, PICTURES, (PICTURES, torch.tensor([0, 1, 2, 0])), functional.cross_entropy),
    "shuffles and dense": (Doubler, SMALL, (SMALL, functional.interpolate(SMALL, scale_factor=2)), functional.mse_loss),
}


@pytest.mark.parametrize("name", ["structured", "structured_taylor"])
@pytest.mark.parametrize("case", CASES)
def test_a_removed_channel_is_a_silent_one(name, case, monkeypatch):
    """Gates, depthwise convolutions and concatenations follow; behind a shuffle whole groups stay, or the right ones go."""
    for repair in ("reestimate_batch_norm", "refit_last_layer"):
        monkeypatch.setattr(f"autocut.stages.prune.structured.{repair}", lambda *_: None)
    kind, inputs, batch, loss = CASES[case]
    model = built(kind)
    pruned = pruners[name](model, 0.5, PruneData(inputs, [batch], loss)).model
    weights, left = (sum(parameter.numel() for parameter in one.parameters()) for one in (model, pruned))

    assert left < 0.8 * weights
    torch.testing.assert_close(pruned(inputs), silenced(model, pruned)(inputs), rtol=1e-3, atol=1e-4)
    assert pruned(inputs[:1]).shape == model(inputs[:1]).shape


@pytest.mark.parametrize("mode", ["eager", "onnxruntime"])
def test_bytes_stay_bytes_in_the_artifact(mode, tmp_path):
    """A camera's pictures are served as they are, one at a time too."""
    model = built(ClothesNet)
    lowering.lower(model, "fp32", mode, [PICTURES], tmp_path)
    predict = lowering.load(tmp_path, mode)

    torch.testing.assert_close(predict(PICTURES), model(PICTURES), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(predict(PICTURES[:1]), model(PICTURES[:1]), rtol=1e-3, atol=1e-4)


def test_half_precision_takes_bytes_too(tmp_path, monkeypatch):
    """uint8 / 255 is float32, whatever the weights are: the first convolution gets it in 16 bits, simulated where it has to be."""
    monkeypatch.setattr(lowering, "require_feasible", lambda *_: None)
    model = built(ClothesNet)
    lowering.lower(model, "bf16", "eager", [PICTURES], tmp_path)

    assert torch.cosine_similarity(lowering.load(tmp_path, "eager")(PICTURES), model(PICTURES)).min() > 0.999
