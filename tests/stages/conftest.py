"""Small seeded models and inputs that every stage's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional


class OptionABlock(nn.Module):
    """Residual block of the published CIFAR ResNets: a parameter-free shortcut that strides and zero-pads channels."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.extra = (width - width_in) // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Add the shortcut to two convolutions."""
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra), "constant", 0)
        return functional.relu(out + x)


class TinyResNet(nn.Module):
    """Two stages of option-A blocks on (n, 3, 8, 8) images, four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(OptionABlock(16, 16, 1), OptionABlock(16, 32, 2))
        self.linear = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n, 4)."""
        return self.linear(functional.avg_pool2d(self.blocks(self.stem(x)), 4).flatten(1))


class TinyTransformer(nn.Module):
    """One encoder layer over token ids of shape (n, 6), three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape (n, 3)."""
        return self.head(self.encoder(self.embed(tokens)).mean(1))


class ResidualBlock(nn.Module):
    """(n, 16) -> (n, 16): a small change of its input."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(16, 32), nn.Linear(32, 16)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Add a scaled branch."""
        return x + self.scale * self.outer(functional.relu(self.inner(x)))


class TinyDeep(nn.Module):
    """Four residual blocks of which the second and the last change little; three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(ResidualBlock(scale) for scale in (4.0, 0.1, 3.0, 0.01))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n, 3)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same random state and leaves torch's as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def tiny_mlp() -> nn.Module:
    """(n, 8) -> (n, 3)."""
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


@pytest.fixture
def tiny_cnn() -> nn.Module:
    """(n, 1, 8, 8) -> (n, 3), with batch normalization."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 3),
    ).eval()


@pytest.fixture
def tiny_resnet() -> nn.Module:
    """(n, 3, 8, 8) -> (n, 4), residual with option-A shortcuts."""
    return TinyResNet().eval()


@pytest.fixture
def tiny_transformer() -> nn.Module:
    """Token ids (n, 6) below 20 -> (n, 3)."""
    return TinyTransformer().eval()


@pytest.fixture
def mlp_inputs() -> Tensor:
    """Sixteen examples for `tiny_mlp`."""
    return torch.randn(16, 8)


@pytest.fixture
def cnn_inputs() -> Tensor:
    """Sixteen images for `tiny_cnn`."""
    return torch.randn(16, 1, 8, 8)


@pytest.fixture
def resnet_inputs() -> Tensor:
    """Sixteen images for `tiny_resnet`."""
    return torch.randn(16, 3, 8, 8)


@pytest.fixture
def transformer_inputs() -> Tensor:
    """Sixteen token sequences for `tiny_transformer`."""
    return torch.randint(0, 20, (16, 6))


@pytest.fixture
def tiny_deep() -> nn.Module:
    """(n, 8) -> (n, 3), through four residual blocks."""
    return TinyDeep().eval()


@pytest.fixture
def deep_inputs() -> Tensor:
    """Sixteen examples for `tiny_deep`."""
    return torch.randn(16, 8)
