"""A task of a data frame and a model of the user's: numbers are standardised, categories become codes for embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autocut.counting import format_count
from autocut.errors import TaskError, name_hint, quoted
from autocut.task.task import Task

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Columns:
    """What a table's model is built for.

    `numbers` names the numeric columns. `categories` holds the number of codes of each other column, in the order of the codes.
    `outputs` is the number of classes, or 1 for a target that is a number.
    """

    numbers: tuple[str, ...]
    categories: Mapping[str, int]
    outputs: int


def from_dataframe(
    frame: pd.DataFrame,
    target: str,
    model: Callable[[Columns], nn.Module],
    *,
    name: str,
    kind: str = "classification",
    test_share: float = 0.2,
    seed: int = 0,
    **settings: Any,
) -> Task:
    """Return the task of predicting the column `target` from all other columns.

    The model is called as ``model(numbers, codes)``: (n, numeric columns), float32, and (n, other columns), int64. It gets only one
    of them where the frame has no column of the other sort. Numbers have mean 0 and deviation 1 over the training rows. Codes count
    the sorted values of a column from 0; the model embeds them as it likes. Missing values are refused, because only the user knows
    what they mean.

    Args:
        frame: One row an example. Leave out columns that tell the target or number the rows.
        target: The column to predict. Its sorted values are the classes, or it is a number (n,) for other kinds.
        model: Builds the model for the columns that were found.
        name: The task's name.
        kind: The task's kind.
        test_share: Share of the rows in the locked test split, drawn by `seed`. Validation is split off the others.
        seed: The task's seed.
        settings: Other fields of `Task`, such as `epochs` or `pretrained`. The functions in `students` get the columns too.

    Raises:
        TaskError: a column is missing, has missing values or the name of another, or there are too few rows for two splits.
    """
    _check(frame, target, test_share)
    order = np.random.default_rng(seed).permutation(len(frame))
    tested = min(max(1, round(len(frame) * test_share)), len(frame) - 1)
    is_train = np.ones(len(frame), dtype=bool)
    is_train[order[:tested]] = False
    features = frame.drop(columns=target)
    numeric = [column for column in features if _is_number(features[column])]
    coded = [column for column in features if column not in numeric]
    codes = {str(column): _codes(features[column]) for column in coded}
    inputs: list[Tensor] = []
    if numeric:
        inputs.append(torch.from_numpy(_standardised(features[numeric].to_numpy(np.float64), is_train)).float())
    if coded:
        inputs.append(torch.from_numpy(np.stack([values for values, _ in codes.values()], axis=1)))
    targets, outputs = _targets(frame[target], kind)
    columns = Columns(tuple(map(str, numeric)), {column: count for column, (_, count) in codes.items()}, outputs)
    splits = {split: _part(inputs, targets, rows) for split, rows in (("train", is_train), ("test", ~is_train))}
    if isinstance(students := settings.get("students"), Mapping):
        settings["students"] = {student: partial(build, columns) for student, build in students.items()}
    return Task(name=name, model=partial(model, columns), kind=kind, seed=seed, **{**splits, **settings})


def _check(frame: pd.DataFrame, target: str, test_share: float) -> None:
    names = [str(column) for column in frame.columns]
    if target not in frame.columns:
        raise TaskError(
            f"target must be a column of the frame ({', '.join(names)}), got {quoted(target)}", name_hint(target, names)
        )
    if len(names) < 2 or len(frame) < 2:
        raise TaskError(
            f"frame must have rows, and a column beside {quoted(target)}, got {format_count(len(frame), 'row')} "
            f"of {', '.join(names)}"
        )
    if not 0 < test_share < 1:
        raise TaskError(f"test_share must be between 0 and 1, got {quoted(test_share)}", "test_share=0.2")
    if len(set(names)) < len(names):
        raise TaskError(f"frame must have columns of different names, got {', '.join(names)}", "rename or drop one of them")
    missing = frame.isna().sum()
    for column, count in missing.items():
        if count:
            raise TaskError(
                f"frame must have no missing values, got {count} in {quoted(column)}",
                f"frame.dropna(), or frame.fillna({{{quoted(column)}: value}})",
            )
    for column in frame.columns:
        if _is_number(frame[column]) and not np.isfinite(frame[column].to_numpy(np.float64)).all():
            raise TaskError(f"frame must have finite numbers, got infinity in {quoted(column)}", "drop or clip these rows")


def _is_number(column: pd.Series[Any]) -> bool:
    """Whether a column holds numbers; true and false are categories."""
    return column.dtype.kind in "iuf"


def _codes(column: pd.Series[Any]) -> tuple[NDArray[np.int64], int]:
    """Return the position of each value among the sorted values of the column, and the number of these."""
    values, codes = np.unique(column.astype(str).to_numpy(str), return_inverse=True)
    return codes.astype(np.int64), len(values)


def _standardised(numbers: NDArray[np.float64], is_train: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Subtract the mean of the training rows and divide by their deviation; a constant column becomes 0 there."""
    known = numbers[is_train]
    # Rounding gives a constant column a tiny deviation, so the range tells.
    deviation = np.where(np.ptp(known, axis=0) > 0, known.std(axis=0), 1.0)
    scaled: NDArray[np.float64] = (numbers - known.mean(axis=0)) / deviation
    return scaled


def _targets(column: pd.Series[Any], kind: str) -> tuple[Tensor, int]:
    if kind == "classification":
        values, codes = np.unique(
            column.to_numpy() if _is_number(column) else column.astype(str).to_numpy(str), return_inverse=True
        )
        return torch.from_numpy(codes.astype(np.int64)), len(values)
    if not _is_number(column):
        raise TaskError(f"target must be a number for kind {quoted(kind)}, got a column of {column.dtype}", 'kind="classification"')
    return torch.from_numpy(column.to_numpy(np.float32).copy()), 1


def _part(inputs: Sequence[Tensor], targets: Tensor, rows: NDArray[np.bool_]) -> TensorDataset:
    chosen = torch.from_numpy(rows)
    return TensorDataset(*(tensor[chosen] for tensor in inputs), targets[chosen])
