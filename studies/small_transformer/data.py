"""Short requests to an assistant and what they ask for: CLINC150, or made-up sentences of the same shape where it is missing."""

from __future__ import annotations

import collections
import functools
import gzip
import json
import os
import random
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from autocut.errors import TaskError

_FILE = "data_full.json.gz"
LENGTH = 32
"""Words of a text; the longest has 28."""
WORDS = 3000
"""Ids of words: 0 is padding, 1 an unknown word, the rest the commonest words of the training split."""
INTENTS = 150
SIZES = {"train": 15_000, "val": 3_000, "test": 4_500}

Texts = list[tuple[str, str]]


def train() -> TensorDataset:
    """The 15,000 training texts."""
    return _split("train")


def validation() -> TensorDataset:
    """The 3,000 texts of the official validation split."""
    return _split("val")


def test() -> TensorDataset:
    """The 4,500 texts of the official test split."""
    return _split("test")


def _split(name: str) -> TensorDataset:
    texts, ids, intents = _texts()[name], _vocabulary(), _intents()
    tokens = torch.stack([_tokens(text, ids) for text, _ in texts])
    return TensorDataset(tokens, torch.tensor([intents[intent] for _, intent in texts]))


def _tokens(text: str, ids: dict[str, int]) -> Tensor:
    known = [ids.get(word, 1) for word in text.split()[:LENGTH]]
    return torch.tensor(known + [0] * (LENGTH - len(known)))


@functools.cache
def _vocabulary() -> dict[str, int]:
    counts = collections.Counter(word for text, _ in _texts()["train"] for word in text.split())
    common = sorted(counts, key=lambda word: (-counts[word], word))[: WORDS - 2]
    return {word: number for number, word in enumerate(common, start=2)}


@functools.cache
def _intents() -> dict[str, int]:
    return {intent: number for number, intent in enumerate(sorted({intent for _, intent in _texts()["train"]}))}


@functools.cache
def _texts() -> dict[str, Texts]:
    """Read the texts of each split from the folder that `AUTOCUT_DATA` names; where it names none, make some up and say so.

    Raises:
        TaskError: the folder has no such file.
    """
    if not (named := os.environ.get("AUTOCUT_DATA")):
        print("small_transformer: AUTOCUT_DATA names no folder; the texts are made up", file=sys.stderr)
        return _made_up()
    folder = Path(named).expanduser()
    for path in (folder / "text_clinc150" / _FILE, folder / _FILE):
        if path.is_file():
            content = json.loads(gzip.decompress(path.read_bytes()))
            return {name: [(text, intent) for text, intent in content[name]] for name in SIZES}
    raise TaskError(f"AUTOCUT_DATA must hold text_clinc150/{_FILE}, got no such file in {named!r}", "unset it for made-up texts")


def _made_up() -> dict[str, Texts]:
    """Sentences whose intent is told by three words of its own among common ones."""
    chance = random.Random(0)
    own = {f"intent {number:03}": [f"word{number}_{each}" for each in range(12)] for number in range(INTENTS)}
    common = [f"common{number}" for number in range(1000)]
    made: dict[str, Texts] = {}
    seen: set[str] = set()
    for name, size in SIZES.items():
        made[name] = []
        while len(made[name]) < size:
            intent = chance.choice(list(own))
            words = chance.sample(own[intent], 3) + chance.choices(common, k=chance.randint(3, 15))
            chance.shuffle(words)
            text = " ".join(words)
            if text not in seen:  # splits must not overlap
                seen.add(text)
                made[name].append((text, intent))
    return made
