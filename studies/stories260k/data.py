"""TinyStories as tokens, and the published files of stories260K."""

from __future__ import annotations

import gzip
import re
import struct
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from autocut.errors import TaskError
from autocut.tasks.data_files import DataFile

_MODEL_URL = "https://github.com/DaveBben/esp32-llm/raw/934dab4d242d259abd88678488ea3b62d4fca601/data"
_TEXT_URL = "https://github.com/Niklas6/Mini_GPT/raw/0e9893779c9e2048205ea1339eb588983d72adc1/tinystories.txt"
_TEXT_SHA256 = "727e8b228375be3075114c20729c93ed6e81ae5d8fe7faf7cb54b304f0322d70"
WEIGHTS = DataFile(
    "weights_stories260k", "stories260K.bin", f"{_MODEL_URL}/stories260K.bin",
    "b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
)  # fmt: skip
TOKENS = DataFile(
    "weights_stories260k", "tok512.bin", f"{_MODEL_URL}/tok512.bin",
    "037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312",
)  # fmt: skip
TEXT = DataFile("lm_tinystories_sample", "tinystories.txt", _TEXT_URL, _TEXT_SHA256)
COMPRESSED_TEXT = DataFile("lm_tinystories_sample", "tinystories.txt.gz", _TEXT_URL, _TEXT_SHA256)

WINDOW = 128
"""Tokens that the model reads at once."""
BEGIN = 1
"""The token before each text."""
_FIRST_BYTE = 3
"""Token of the byte 0; those of the other bytes follow."""
_BEGINS = re.compile(r"Once upon a time|Once,|Once there|One day, (?:an?|there) |There (?:was|once|lived) |In a ")
_SHARES = {"train": (0.0, 0.7), "validation": (0.7, 0.85), "test": (0.85, 1.0)}


def train() -> TensorDataset:
    """Windows of the first 70% of the stories."""
    return _split("train")


def validation() -> TensorDataset:
    """Windows of the next 15%."""
    return _split("validation")


def test() -> TensorDataset:
    """Windows of the last 15%."""
    return _split("test")


def _split(name: str) -> TensorDataset:
    """Cut the stories of a split, one after the other, into windows; the targets are the same tokens one step later."""
    stories = _stories()
    first, last = (round(share * len(stories)) for share in _SHARES[name])
    stream = torch.cat(stories[first:last])
    windows = (len(stream) - 1) // WINDOW
    if not windows:
        raise TaskError(f"{name} must have a window of {WINDOW} tokens, got {len(stream)} tokens", "give more stories")
    stream = stream[: windows * WINDOW + 1]
    return TensorDataset(stream[:-1].view(windows, WINDOW), stream[1:].view(windows, WINDOW))


@cache
def _stories() -> list[Tensor]:
    """Tokens of each story. Its paragraphs are lines, as in the text that the model was trained on."""
    compressed = COMPRESSED_TEXT.find()
    text = gzip.decompress(compressed.read_bytes()).decode() if compressed else TEXT.fetch().read_text()
    tokenizer = Tokenizer.read(TOKENS.fetch())
    return [torch.tensor(tokenizer.encode("\n".join(story))) for story in split_stories(text)]


def split_stories(text: str) -> list[list[str]]:
    """Return the paragraphs of each story. The file does not mark where a story begins, but the first words tell."""
    stories: list[list[str]] = []
    for paragraph in text.strip().split("\n\n"):
        if _BEGINS.match(paragraph) or not stories:
            stories.append([])
        stories[-1].append(paragraph)
    return stories


class Tokenizer:
    """Byte pairs, as llama2.c has them: neighbours merge, the pair of the best score first."""

    def __init__(self, pieces: list[bytes], scores: list[float]) -> None:
        self.pieces = pieces
        self._numbers = {piece: number for number, piece in enumerate(pieces)}
        self._scores = scores
        self._known: dict[str, list[int]] = {}

    @classmethod
    def read(cls, path: Path) -> Tokenizer:
        """Read a tokenizer file of llama2.c: the longest length, then score, length and bytes of each piece.

        Raises:
            TaskError: the file ends within a piece.
        """
        content, at = path.read_bytes(), 4
        pieces: list[bytes] = []
        scores: list[float] = []
        try:
            while at < len(content):
                score, size = struct.unpack_from("<fi", content, at)
                at += 8
                if size < 0 or at + size > len(content):
                    raise struct.error("a piece is cut short")
                pieces.append(content[at : at + size])
                scores.append(score)
                at += size
        except struct.error as error:
            raise TaskError(f"{path.name} must be a list of pieces, got {error} ({path})", "download it again") from error
        return cls(pieces, scores)

    def encode(self, text: str) -> list[int]:
        """Return `BEGIN` and the tokens of `text`."""
        tokens = [BEGIN]
        # A piece has a space at its beginning alone, so the words of a text merge independently.
        for word in re.findall(r" [^ ]*|[^ ]+", f" {text}"):
            if word not in self._known:
                self._known[word] = self._encode_word(word)
            tokens += self._known[word]
        return tokens

    def decode(self, tokens: list[int]) -> str:
        """Return the text of `tokens`."""
        text = b"".join(self._bytes_of(token) for token in tokens if token != BEGIN)
        return text.decode(errors="replace").removeprefix(" ")

    def _encode_word(self, word: str) -> list[int]:
        tokens: list[int] = []
        for letter in word:
            known = self._numbers.get(letter.encode())
            tokens += [byte + _FIRST_BYTE for byte in letter.encode()] if known is None else [known]
        while True:
            merged = [self._numbers.get(self.pieces[a] + self.pieces[b]) for a, b in pairwise(tokens)]
            found = [(self._scores[number], -at) for at, number in enumerate(merged) if number is not None]
            if not found:
                return tokens
            at = -max(found)[1]
            tokens[at : at + 2] = [merged[at]]  # type: ignore[list-item]  # a number: it was found

    def _bytes_of(self, token: int) -> bytes:
        is_byte = re.fullmatch(rb"<0x([0-9A-F]{2})>", self.pieces[token])
        return bytes([int(is_byte[1], 16)]) if is_byte else self.pieces[token]
