"""SNIPS: requests to an assistant and which of seven things they ask for, and a tokenizer of whole words."""

from __future__ import annotations

import csv
import gzip
import os
import random
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from autocut.errors import TaskError

_FILE = "snips7.tsv.gz"
_SOURCE = "https://github.com/sonos/nlu-benchmark, 2017-06-custom-intent-engines"
WORDS = 4000
"""Ids of words: 0 is padding, 1 an unknown word, the rest the commonest words of the training texts."""
LONGEST = 32
VALIDATION = 1500

Row = tuple[str, int]


class WordTokenizer:
    """Gives each word of a text its id, as tokenizers of `transformers` are called."""

    pad_token_id = 0

    def __init__(self, texts: Iterable[str]) -> None:
        counts = Counter(word for text in texts for word in words_of(text))
        common = sorted(counts, key=lambda word: (-counts[word], word))[: WORDS - 2]
        self.ids = {word: number for number, word in enumerate(common, start=2)}

    def __call__(self, texts: list[str], *, truncation: bool = True, max_length: int = LONGEST) -> dict[str, list[list[int]]]:
        """Return ids, and a mask that is 1 for every word."""
        longest = max_length if truncation else None
        ids = [[self.ids.get(word, 1) for word in words_of(text)[:longest]] for text in texts]
        return {"input_ids": ids, "attention_mask": [[1] * len(of_text) for of_text in ids]}


def words_of(text: str) -> list[str]:
    """Split a text into lower-case words and marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def train() -> list[Row]:
    """The official training texts but the 1,500 of `validation`."""
    return _shuffled_train()[VALIDATION:]


def validation() -> list[Row]:
    """1,500 of the official training texts, chosen by a seed."""
    return _shuffled_train()[:VALIDATION]


def test() -> list[Row]:
    """The 700 official validation texts: the published set has no other split."""
    return _rows("validate")


@cache
def intents() -> tuple[str, ...]:
    """The names of the intents, sorted: an intent's class is its position."""
    return tuple(sorted({intent for _, intent, _ in _table()}))


@cache
def tokenizer() -> WordTokenizer:
    """The tokenizer of the training texts."""
    return WordTokenizer(text for text, _ in train())


def _shuffled_train() -> list[Row]:
    """The training texts in the order of a seed. A text that occurs twice is kept once: it might end up in two splits."""
    rows = list({text: (text, intent) for text, intent in _rows("train")}.values())
    random.Random(0).shuffle(rows)
    return rows


def _rows(split: str) -> list[Row]:
    return [(text, intents().index(intent)) for in_split, intent, text in _table() if in_split == split and text.strip()]


@cache
def _table() -> list[list[str]]:
    """Read (split, intent, text) of every row.

    Raises:
        TaskError: `AUTOCUT_DATA` does not name a folder with the file.
    """
    named = os.environ.get("AUTOCUT_DATA", "")
    folder = Path(named).expanduser()
    path = next((path for path in (folder / "text_snips" / _FILE, folder / _FILE) if named and path.is_file()), None)
    if path is None:
        raise TaskError(
            f"AUTOCUT_DATA must hold text_snips/{_FILE}, got {f'no such file in {named!r}' if named else 'no folder'}",
            f"a table split, intent, text of {_SOURCE}; studies/snips/README.md says how to make it",
        )
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return list(csv.reader(lines[1:], delimiter="\t", quoting=csv.QUOTE_NONE))
