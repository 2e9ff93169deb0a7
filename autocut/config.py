"""The configuration of a search, and the configuration file `autocut.toml`.

Each value comes from the first of these that has it: flag, ``AUTOCUT_<VERB>_<FLAG>``, file, default. The file has one table for
each verb. Its keys are the names of the flags::

    [search]
    budget = "8h"
    price-per-hour = 0.12
    limit = ["latency_ms<=5"]
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocut.errors import InputError, name_hint, quoted
from autocut.precision import AUTO, AskedPrecision
from autocut.toml_lines import FaultList, LineMap

CONFIG_FILE = "autocut.toml"
STUDIES = Path("studies")
DEFAULT_CACHE_BYTES = 10 * 2**30
LARGEST_DROP = 0.05
"""What a point may lose of the metric where the user names no `--max-accuracy-drop`: 5 points of a share (`score.allowed_drop`)."""


def cpu_count() -> int:
    """Return the number of processors that this process may use; a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class SearchConfig:
    """The configuration of `autocut search`, checked, with units in the names.

    None means: for `task`, the embedded digits task; for `out`, ``studies/<task name>``; for `storage`, an SQLite file in that
    folder; for `ray_address`, a local Ray of our own; for `stages`, the study folder; for `measure_on`, the most common kind of
    node; for `learn_from`, no study; for `price_per_hour`, the price of `instance` in the price sheet; for `max_accuracy_drop`,
    what the study was begun with, and `LARGEST_DROP` for a new study; for `requests_per_month` (predictions) and `grid_intensity`
    (grams of CO2 per kWh), what the study was told last, and `bill.Serving` for a new study.

    `workers` is 0 where a cluster's nodes decide it.

    `train_on` is the CPU unless the user asks for a GPU: two trainings that differ in their device differ in their last bits, and a
    study keeps to the device that it was begun with. `train_precision` is what the products of a training compute in, fp32 or bf16;
    auto: what trains this model faster here.
    `serve_on` is where models are scored and timed, and where their bundles run.

    The agent varies the recipes of the front, and `sampler` proposes further recipes. In studies/search_efficiency multivariate TPE
    was as good as TPE in half of the time, and a little better than random recipes.
    """

    task: str | None
    budget_s: float
    space: str = "default"
    out: Path | None = None
    storage: str | None = None
    ray_address: str | None = None
    stages: Path | None = None
    measure_on: str | None = None
    workers: int = 1
    threads: int = 1
    train_on: str = "cpu"
    train_precision: AskedPrecision = AUTO
    serve_on: str = "cpu"
    sampler: str = "tpe_multivariate"
    seed: int = 0
    instance: str = "c7i.large"
    price_per_hour: float | None = None
    utilization: float = 1.0
    requests_per_month: float | None = None
    grid_intensity: float | None = None
    limits: tuple[str, ...] = ()
    max_accuracy_drop: float | None = None
    try_recipes: tuple[Path, ...] = ()
    learn_from: Path | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    worker_bytes: int | None = None
    examples: bool = True
    rehash: bool = False
    adopt_stages: bool = False

    @property
    def task_path(self) -> str | None:
        """Absolute path of the task's file, for any working directory; None for the embedded digits task."""
        return None if self.task is None else str(Path(self.task).expanduser().resolve())

    @property
    def stages_path(self) -> Path | None:
        """Absolute path of `stages`."""
        return None if self.stages is None else self.stages.expanduser().resolve()

    def folder(self, task_name: str) -> Path:
        """Return the study folder of a task with this name."""
        return self.out if self.out is not None else STUDIES / task_name


def read_config_file(
    path: Path, options: Mapping[str, Mapping[str, str]], repeatable: Collection[str] = (), switches: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Read a configuration file in the form of click's `default_map`.

    Args:
        path: The TOML file.
        options: For each verb: key as a person writes it (``price-per-hour``) -> name of the parameter that it sets.
        repeatable: Names of the parameters that take several values, as a list or one alone.
        switches: Names of the parameters that are true or false. For any other one, true is a text that its parser refuses.

    Returns:
        For each verb: parameter name -> value. Values stay strings for the parsers of the flags, except those of switches.

    Raises:
        InputError: The file cannot be read or is not TOML.
        FaultsError: A verb or key is unknown; all of them are listed, each with its line and the nearest valid name.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"configuration file must be readable TOML, got {quoted(str(path))}: {reason}") from error
    faults = FaultList(LineMap(text, str(path)))
    merged: dict[str, dict[str, Any]] = {}
    for verb, table in document.items():
        if not isinstance(table, dict):
            message = f"keys must stand in a table of their verb, got {quoted(verb)} on its own"
            faults.add((verb,), message, f"write [search] above it, or one of {', '.join(options)}")
        elif verb not in options:
            faults.add((verb,), f"table must be one of {', '.join(options)}, got {quoted(verb)}", name_hint(verb, options))
        else:
            merged[verb] = _values(verb, table, options[verb], repeatable, switches, faults)
    faults.raise_any("configuration file")
    return merged


def _values(
    verb: str,
    table: Mapping[str, Any],
    names: Mapping[str, str],
    repeatable: Collection[str],
    switches: Collection[str],
    faults: FaultList,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in names:
            faults.add((verb, key), f"key of [{verb}] must be one of {', '.join(names)}, got {quoted(key)}", name_hint(key, names))
        elif isinstance(value, dict):
            faults.add((verb, key), f"{verb}.{key} must be a value, got a table")
        elif names[key] in repeatable:
            values[names[key]] = [_text(item) for item in (value if isinstance(value, list) else [value])]
        elif isinstance(value, list):
            faults.add((verb, key), f"{verb}.{key} must be one value, got a list of {len(value)}")
        else:
            values[names[key]] = value if isinstance(value, bool) and names[key] in switches else _text(value)
    return values


def _text(value: Any) -> str:
    """Write a value as TOML does."""
    return str(value).lower() if isinstance(value, bool) else str(value)
