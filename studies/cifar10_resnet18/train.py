"""Train the ResNet-18 of this study, once, and write its weights to a file.

    AUTOCUT_DATA=/data python studies/cifar10_resnet18/train.py resnet18.pt

It learns from the answers of the published ResNet-56 alone, and sees the 10,000 training images (or as many as are there)
mirrored, shifted by up to four pixels, and half of them mixed with another one. The teacher sees what the network sees (Beyer et
al. 2022). In the first half of the epochs the network sees them at half the height and width, which takes half of the time.
Nothing here looks at validation or test.

Each epoch is kept in FILE.part: the same command goes on from there. It uses all cores, and bfloat16, which is fast on processors
with AMX.

References:
    Beyer et al. 2022, Knowledge distillation: A good teacher is patient and consistent, https://arxiv.org/abs/2106.05237
    Zhang et al. 2018, mixup, https://arxiv.org/abs/1710.09412
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from augmentation import mirrored_and_shifted
from resnet18 import ResNet18
from sibling import data, published

BATCH = 128
TEMPERATURE = 4.0
RATE, DECAY = 0.1, 5e-4
SMALL_SHARE = 0.5
"""The share of the epochs whose images have half the height and width."""


def main() -> None:
    """Train and write the file."""
    asked = _arguments()
    torch.manual_seed(asked.seed)
    model = ResNet18().to(memory_format=torch.channels_last)
    teacher = published.resnet56().eval().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
    part = asked.file.with_name(f"{asked.file.name}.part")
    done = _resume(part, model, optimizer)
    images = data.train()
    for epoch in range(done, asked.epochs):
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(asked.seed * 1000 + epoch)
        small = epoch < round(SMALL_SHARE * asked.epochs)
        loss = train_epoch(model, teacher, optimizer, batches(images, generator, epoch, asked.epochs), small=small)
        _write({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}, part)
        print(f"epoch {epoch + 1} of {asked.epochs}: loss {loss:.4f}, {time.perf_counter() - started:.1f} s", flush=True)
    _write(model.to(memory_format=torch.contiguous_format).state_dict(), asked.file)
    part.unlink(missing_ok=True)


def train_epoch(
    model: nn.Module,
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, float]],
    *,
    small: bool = False,
) -> float:
    """Train on batches of images, each with its learning rate; return the mean loss. `small`: at half the height and width."""
    model.train()
    losses = []
    for images, rate in batches:
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                answers = teacher(images)
            logits = model(functional.avg_pool2d(images, 2) if small else images)
        loss = divergence(logits.float(), answers.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def divergence(logits: Tensor, answers: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the teacher's answers, both softened, times the squared temperature."""
    ours, theirs = (functional.log_softmax(each / TEMPERATURE, dim=1) for each in (logits, answers))
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * TEMPERATURE**2


def mixed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mix the second half of the images with another one each."""
    count = len(images)
    share = torch.rand(count, 1, 1, 1, generator=generator)
    share[: count // 2] = 1
    return share * images + (1 - share) * images[torch.randperm(count, generator=generator)]


def batches(images: Any, generator: torch.Generator, epoch: int, epochs: int, rate: float = RATE) -> Iterator[tuple[Tensor, float]]:
    """The batches of one epoch. Their learning rate rises over the first tenth of the training, then falls along a cosine."""
    order = torch.randperm(len(images), generator=generator).split(BATCH)
    for number, indices in enumerate(order):
        progress = (epoch + number / len(order)) / epochs
        factor = min(10 * progress, 0.5 + 0.5 * math.cos(math.pi * max(progress - 0.1, 0) / 0.9))
        batch = mixed(mirrored_and_shifted(images.fetch_batch(indices)[0], generator), generator)
        yield batch.contiguous(memory_format=torch.channels_last), rate * factor


def _resume(part: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Go on from `part`, if it is there; return the epochs that are done."""
    if not part.exists():
        return 0
    state = torch.load(part, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epochs"])


def _write(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_name(f"{path.name}.writing")
    torch.save(state, temporary)
    temporary.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the weights are written")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
