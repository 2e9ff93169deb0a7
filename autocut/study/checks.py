"""Checks of what a study's database holds as free JSON: facts, values and objectives. A stranger may have written it.

Everything here raises `ValueError`, which `reading_errors` reports as damage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from autocut.bill import Serving
from autocut.errors import AutocutError, quoted
from autocut.precision import CONTIGUOUS, FULL, MemoryFormat, Precision
from autocut.price import Price

_Count = Annotated[int, Field(ge=1, le=2**31)]


class _Metric(BaseModel):
    """The fields of an `Interval`."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class _Facts(BaseModel):
    """The study attributes that autocut reads again. Everything else is only shown."""

    model_config = ConfigDict(extra="allow")

    task_path: str | None = None
    stages_root: str | None = None
    stage_key: str | None = None
    threads: _Count | None = None
    train_on: Literal["cpu", "cuda"] = "cpu"
    train_precision: Precision = FULL
    train_memory_format: MemoryFormat = CONTIGUOUS
    serve_on: Literal["cpu", "cuda"] = "cpu"
    seed: int | None = None
    limits: list[str] = []
    price: Price | None = None
    price_fit: str | None = None
    training_kinds: list[str] = []
    serving: Serving = Serving()
    machine: dict[str, Any] | str | None = None
    machine_audit: list[str] = []
    libraries: dict[str, str] = {}
    mode_libraries: dict[str, dict[str, str | None]] = {}
    scoring: dict[Literal["examples", "of", "seconds_each"], FiniteFloat] | None = None
    baseline: _Metric | None = None
    untouched_epochs: _Count | None = None
    max_accuracy_drop: FiniteFloat | None = None
    share_examples: bool = True


_VALUES = TypeAdapter(dict[str, FiniteFloat])
_OBJECTIVES = TypeAdapter(list[tuple[str, Literal["maximize", "minimize"]]])


def checked_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return `facts` as they are, after a look at those that autocut reads again."""
    try:
        _Facts.model_validate(facts)
    except AutocutError as error:  # of `Price` and `Serving`, which name flags that nobody typed here
        raise ValueError(error.message) from error
    return dict(facts)


def checked_values(values: Any, needed: Iterable[str] = ()) -> dict[str, float]:
    """Return the values of a trial: finite numbers, those `needed` among them."""
    numbers = _VALUES.validate_python(values)
    if missing := [name for name in needed if name not in numbers]:
        raise ValueError(f"values of a trial must hold {missing[0]}")
    return numbers


def checked_text(text: Any) -> str | None:
    """Return a text that may be missing. SQLite keeps bytes in a column of texts, too."""
    if text is None or isinstance(text, str):
        return text
    raise ValueError(f"a text must stand in a column of texts, got {type(text).__name__}")


def checked_bundle(stored: Any) -> str | None:
    """Return the path of a bundle, which lies in the folder of its study: the dashboard packs what is there."""
    path = checked_text(stored)
    if path is not None and (PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts):
        raise ValueError(f"bundle must lie in the folder of the study, got {quoted(path)}")
    return path


def checked_objectives(pairs: Any) -> dict[str, str]:
    """Return the objectives of a study: at least one, each to be maximized or minimized."""
    objectives: dict[str, str] = dict(_OBJECTIVES.validate_python(pairs))
    if not objectives:
        raise ValueError("a study must have an objective")
    return objectives
