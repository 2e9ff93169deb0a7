"""A task of a transformers model, its tokenizer and texts. The library itself is not imported: only what it gave is called.

Texts are cut to `max_length` tokens. Each batch is padded to its own longest text, so lengths are free: the artifact takes texts of
any length that the model takes, and its cost is measured at the lengths of the data.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from autocut.errors import TaskError, quoted
from autocut.task.kinds import IGNORED
from autocut.task.task import Task

Tokens = dict[str, list[int]]
"""What a tokenizer gives for one text: numbers by the name of the model's input."""

_LONGEST = 512
"""Tokens of a text where neither the caller nor the tokenizer has a limit."""
_LABELS = "labels"
_SPLITS = ("train", "test")


def from_transformers(
    model: nn.Module | Callable[[], nn.Module],
    tokenizer: Any,
    dataset: Mapping[str, Any],
    *,
    name: str,
    kind: str = "classification",
    columns: tuple[str, str] = ("text", "label"),
    max_length: int | None = None,
    **settings: Any,
) -> Task:
    """Return the task of a sequence classifier, or of a causal language model (``kind="language_modeling"``).

    Args:
        model: The model, or a function that builds it. It is called with what the tokenizer gives, and answers with `logits`.
        tokenizer: Called with a list of texts; has `pad_token_id`.
        dataset: Rows of "train", of "test" and, where there is one, of "validation", or functions that return them. A row is a
            mapping with the two columns, a pair (text, label), or for a language model a text.
        name: The task's name.
        kind: The task's kind. For language modeling the targets are the tokens themselves, one step later.
        columns: Names of the text and of the label in rows that are mappings.
        max_length: Longest text in tokens; longer ones are cut. Default: the tokenizer's own limit, at most 512.
        settings: Other fields of `Task`, such as `epochs`, `pretrained` or `serving_batch_sizes`.

    Raises:
        TaskError: a split is missing, or the tokenizer cannot pad. Faults of rows are raised when a split is read.
    """
    if not isinstance(dataset, Mapping) or not set(_SPLITS) <= dataset.keys():
        got = ", ".join(map(str, dataset)) if isinstance(dataset, Mapping) else type(dataset).__name__
        raise TaskError(f"dataset must map 'train' and 'test' to rows, got {got}", 'dataset={"train": rows, "test": other_rows}')
    if (padding := getattr(tokenizer, "pad_token_id", None)) is None:
        raise TaskError("tokenizer must have a pad_token_id, got None", "tokenizer.pad_token = tokenizer.eos_token")
    if max_length is None:
        max_length = min(int(getattr(tokenizer, "model_max_length", _LONGEST)), _LONGEST)
    reader = _RowReader(tokenizer, columns, max_length, shifts=kind == "language_modeling")
    splits = {split: partial(reader.read, split, dataset[split]) for split in (*_SPLITS, "validation") if split in dataset}
    inputs = _input_names(tokenizer)
    return Task(
        name=name,
        model=partial(_build, model),
        kind=kind,
        collate=partial(_collate, padding, reader.shifts),
        dynamic={input_name: {1: "length"} for input_name in inputs},
        **{**splits, **settings},
    )


def _build(model: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """Build the model anew: a copy of a given one. It keeps no cache of keys and values, which only generation needs."""
    built = copy.deepcopy(model) if isinstance(model, nn.Module) else model()
    if getattr(getattr(built, "config", None), "use_cache", False):
        built.config.use_cache = False  # type: ignore[union-attr]  # a transformers configuration
    return built


def _input_names(tokenizer: Any) -> tuple[str, ...]:
    """Names of what the tokenizer gives, and so of the model's inputs."""
    try:
        names = tuple(tokenizer(["a"]))
    except Exception as error:
        # A tokenizer may raise anything.
        raise TaskError(f"tokenizer must take a list of texts, got {type(error).__name__}: {error}", "tokenizer(['a'])") from error
    if "input_ids" not in names:
        raise TaskError(f"tokenizer must give input_ids, got {', '.join(map(str, names))}", "give a tokenizer of transformers")
    return names


@dataclass(frozen=True)
class _RowReader:
    """Reads the rows of a split."""

    tokenizer: Any
    columns: tuple[str, str]
    max_length: int
    shifts: bool

    def read(self, split: str, rows: Any) -> _TokenizedTexts:
        """Tokenize all texts of a split."""
        rows = list(rows() if callable(rows) else rows)
        texts = [self._text(split, row) for row in rows]
        given = dict(self.tokenizer(texts, truncation=True, max_length=self.max_length)) if texts else {}
        tokens = [{name: list(values[number]) for name, values in given.items()} for number in range(len(texts))]
        if self.shifts:
            # A text of one token predicts nothing.
            return _TokenizedTexts([_shifted(item) for item in tokens if len(item["input_ids"]) > 1])
        if empty := [number for number, item in enumerate(tokens) if not item["input_ids"]]:
            raise TaskError(f"a text of {split} must have at least one token, got none in row {empty[0]}", "drop empty texts")
        labels = [self._label(split, row) for row in rows]
        return _TokenizedTexts([(item, label) for item, label in zip(tokens, labels, strict=True)])

    def _text(self, split: str, row: Any) -> str:
        text = self._part(split, row, 0)
        if not isinstance(text, str):
            raise TaskError(
                f"a row of {split} must have a text, got {type(text).__name__}",
                f"columns=({quoted(self.columns[0])}, {quoted(self.columns[1])}) names the text and the label",
            )
        return text

    def _label(self, split: str, row: Any) -> Any:
        label = self._part(split, row, 1)
        try:
            # Several labels of one text are a list of numbers.
            torch.as_tensor(label)
        except (TypeError, ValueError, RuntimeError):
            raise TaskError(
                f"a label of {split} must be a number, got {quoted(label)}",
                "number the classes from 0, such as by sorting their names",
            ) from None
        return label

    def _part(self, split: str, row: Any, index: int) -> Any:
        if isinstance(row, str) and index == 0:
            return row
        if isinstance(row, Mapping):
            if self.columns[index] not in row:
                raise TaskError(
                    f"a row of {split} must have the column {quoted(self.columns[index])}, got {', '.join(map(str, row))}",
                    'columns=("text", "label") names both',
                )
            return row[self.columns[index]]
        if isinstance(row, Sequence) and not isinstance(row, str) and len(row) == len(self.columns):
            return row[index]
        raise TaskError(
            f"a row of {split} must be a pair (text, label) or a mapping, got {type(row).__name__}", "give dicts or pairs"
        )


class _TokenizedTexts(Dataset[Any]):
    """(tokens, target) of each text."""

    def __init__(self, items: list[tuple[Tokens, Any]]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tokens, Any]:
        return self._items[index]


def _shifted(tokens: Tokens) -> tuple[Tokens, list[int]]:
    """The tokens without the last, and as targets those without the first."""
    return {name: values[:-1] for name, values in tokens.items()}, tokens["input_ids"][1:]


def _collate(padding: int, shifts: bool, items: list[tuple[Tokens, Any]]) -> dict[str, Tensor]:
    """Pad to the longest text of the batch, on the right: tokens with the tokenizer's padding, other inputs with 0."""
    tokens, targets = zip(*items, strict=True)
    batch = {name: _padded([item[name] for item in tokens], padding if name == "input_ids" else 0) for name in tokens[0]}
    if shifts:
        return {**batch, _LABELS: _padded(targets, IGNORED)}
    labels = torch.tensor(targets)
    return {**batch, _LABELS: labels.float() if labels.is_floating_point() else labels}


def _padded(rows: Sequence[list[int]], filler: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filler)
