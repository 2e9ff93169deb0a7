"""Fashion-MNIST from its official idx files."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from autocut.errors import TaskError
from autocut.tasks.data_files import DataFile

_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
FILES = tuple(DataFile("fashion_mnist", name, f"{_URL}/{name}", sha256) for name, sha256 in _SHA256.items())

VALIDATION = 5000
MEAN, STD = 0.2860, 0.3530  # of the training pixels, in units of 255


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Grey images that stay bytes in memory and become normalized floats (1, 28, 28) a batch at a time."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels
        self.labels = labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One image and its class."""
        images, labels = self.fetch_batch(torch.tensor([index]))
        return images[0], labels[0]

    def fetch_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Whole batch: images (n, 1, 28, 28) and classes (n,)."""
        return (self.pixels[indices].unsqueeze(1).float() / 255 - MEAN) / STD, self.labels[indices]


def train() -> Images:
    """The official training images but the 5,000 of `validation`."""
    return _training_part(slice(VALIDATION, None))


def validation() -> Images:
    """5,000 of the official training images, chosen by a seed."""
    return _training_part(slice(None, VALIDATION))


def test() -> Images:
    """The 10,000 official test images."""
    return _read("t10k")


def _training_part(part: slice) -> Images:
    everything = _read("train")
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))[part]
    return Images(everything.pixels[order], everything.labels[order])


def _read(split: str) -> Images:
    pixels, labels = (read_idx(file.fetch()) for file in FILES if file.name.startswith(split))
    return Images(pixels, labels.long())


def read_idx(path: Path) -> Tensor:
    """Read a gzipped idx file of unsigned bytes (magic 0, 0, 8, dimensions; big-endian sizes; values).

    Raises:
        TaskError: it is damaged or something else.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise TaskError(f"{path.name} must be a gzip file, got {error} ({path})", "delete it to download it again") from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" else 0
    header = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:header]) if len(content) >= header else ()
    if not shape or len(content) - header != math.prod(shape):
        raise TaskError(
            f"{path.name} must be an idx file of bytes, got {len(content)} bytes ({path})", "delete it to download it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).reshape(shape)
