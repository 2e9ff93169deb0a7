"""Shakespeare's plays, letter by letter."""

from __future__ import annotations

import gzip
from functools import cache

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from autocut.errors import TaskError
from autocut.tasks.data_files import DataFile

_URL = "https://github.com/karpathy/char-rnn/raw/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TEXT = DataFile("lm_tinyshakespeare", "input.txt", _URL, _SHA256)
COMPRESSED_TEXT = DataFile("lm_tinyshakespeare", "input.txt.gz", _URL, _SHA256)

WINDOW = 128
"""Letters that the model reads at once."""
LETTERS = "\n !$&',-.3:;?" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abcdefghijklmnopqrstuvwxyz"
"""All letters of the text; a letter's number is its place here."""
_SHARES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}


def train() -> TensorDataset:
    """Windows of the first 80% of the text."""
    return _split("train")


def validation() -> TensorDataset:
    """Windows of the next 10%."""
    return _split("validation")


def test() -> TensorDataset:
    """Windows of the last 10%."""
    return _split("test")


def encode(text: str) -> Tensor:
    """Return the number of each letter, shape (letters,).

    Raises:
        TaskError: a letter is none of `LETTERS`.
    """
    numbers = {letter: number for number, letter in enumerate(LETTERS)}
    unknown = set(text) - set(numbers)
    if unknown:
        raise TaskError(f"the text must have the letters of tinyshakespeare alone, got {min(unknown)!r}", "take its input.txt")
    return torch.tensor([numbers[letter] for letter in text])


def _split(name: str) -> TensorDataset:
    """Cut a part of the text into windows; the targets are the same letters one step later."""
    text = _text()
    first, last = (round(share * len(text)) for share in _SHARES[name])
    part = text[first:last]
    windows = (len(part) - 1) // WINDOW
    if windows < 1:
        raise TaskError(f"{name} must have a window of {WINDOW} letters, got {len(part)} letters", "give more text")
    part = part[: windows * WINDOW + 1]
    return TensorDataset(part[:-1].view(windows, WINDOW), part[1:].view(windows, WINDOW))


@cache
def _text() -> Tensor:
    compressed = COMPRESSED_TEXT.find()
    return encode(gzip.decompress(compressed.read_bytes()).decode() if compressed else TEXT.fetch().read_text())
