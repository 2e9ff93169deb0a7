"""The recorded table: one gzipped JSON file, and what it says of a recipe."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from autocut.measurement import Accuracy, Cost, Interval, Measured, Measurement, cost_from_json
from autocut.recipe import Recipe

SCHEMA_VERSION = 1


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write a table; the same table gives the same bytes."""
    path.write_bytes(gzip.compress(json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), mtime=0))


def read(path: Path) -> Table:
    """Read a table that `write` made."""
    document = json.loads(gzip.decompress(path.read_bytes()))
    if document["schema_version"] != SCHEMA_VERSION:
        raise SystemExit(
            f"{path.name} must have schema_version {SCHEMA_VERSION}, got {document['schema_version']}: record it again"
        )
    return Table(document)


@dataclass(frozen=True)
class Table:
    """What was recorded of one task. Seconds are of one core, without waiting."""

    document: Mapping[str, Any]

    @cached_property
    def prefixes(self) -> dict[Recipe, Mapping[str, Any]]:
        """The record of every prefix."""
        return {Recipe(prefix["recipe"]): prefix for prefix in self.document["prefixes"]}

    @cached_property
    def has_children(self) -> bool:
        """Whether prefixes with inherited weights were recorded."""
        return any(recipe.parent is not None for recipe in self.prefixes)

    @property
    def graphs(self) -> dict[tuple[str, str], str]:
        """The quantized graph of every lowering, on which its accuracy depends."""
        return {_pair(lowering): graph for lowering, graph in self.document["graphs"].items()}

    @property
    def priors(self) -> dict[tuple[str, str], float]:
        """Seconds that a lowering is assumed to take before it was seen."""
        return {_pair(lowering): seconds for lowering, seconds in self.document["priors"].items()}

    def measured(self, recipe: Recipe) -> Measured | None:
        """What a recipe gave and cost; None where it cannot be made, or was not recorded."""
        prefix, (dtype, mode) = self.prefixes.get(recipe.prefix), recipe.lowering
        if prefix is None or f"{dtype}/{mode}" in prefix["failed"]:
            return None
        accuracy = _accuracy(prefix["accuracies"][self.graphs[dtype, mode]])
        cost = self._costs[prefix["structure"], f"{dtype}/{mode}"]
        return Measured(Measurement(accuracy, cost), prefix["train_seconds"], prefix["samples_seen"], (), prefix["structure"])

    def structure_seconds(self, recipe: Recipe) -> tuple[float, float]:
        """Seconds to compile a recipe's model and to time it."""
        found = self.document["structures"][self.prefixes[recipe.prefix]["structure"]]["/".join(recipe.lowering)]
        return found["compile_s"], found["measure_s"]

    @cached_property
    def _costs(self) -> dict[tuple[str, str], Cost]:
        return {
            (structure, lowering): cost_from_json(found["cost"])
            for structure, lowerings in self.document["structures"].items()
            for lowering, found in lowerings.items()
        }


def _accuracy(document: Mapping[str, Any]) -> Accuracy:
    difference = document["difference"]
    return Accuracy(
        document["split"],
        document["examples"],
        Interval(**document["metric"]),
        None if difference is None else Interval(**difference),
        document["p_value"],
    )


def _pair(lowering: str) -> tuple[str, str]:
    dtype, mode = lowering.split("/")
    return dtype, mode
