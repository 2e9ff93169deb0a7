"""A recorded table as a world that answers in simulated time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulation import Stage
from table import Table

from autocut.measurement import Measured, Rung
from autocut.recipe import Recipe


@dataclass(frozen=True)
class RecordedWorld:
    """What the recording says, as stages of the tree.

    Attributes:
        table: Recorded by `record.py`.
        process_s: Seconds until a fresh worker process works.
        finalize_s: Seconds to export, measure and verify a point.
        training_scale: How many times as long as recorded pruning, training and teaching take: a larger data set.
        lowering_scale: How many times as long lowering, scoring and timing take: a slower processor.
    """

    table: Table
    process_s: float
    finalize_s: float
    training_scale: float = 1.0
    lowering_scale: float = 1.0

    def baseline(self) -> Stage:
        """The untouched model, trained where the task brings no weights, and its reference time."""
        seconds, samples = self.table.document["shared_s"]["baseline"], self.table.prefixes[Recipe()]["samples_seen"]
        return Stage("baseline", "baseline", "train", self.training_scale * seconds, "training", samples=samples)

    def prefix(self, recipe: Recipe) -> Stage:
        """Pruning, then training with its teacher, as the pipeline makes them."""
        found = self.table.prefixes[recipe.prefix]
        prune_s, train_s = self.training_scale * found["prune_s"], self.training_scale * found["train_s"]
        parents: tuple[Stage, ...] = ()
        if recipe.parent is not None:
            parents += (self.prefix(recipe.parent),)
            parents += (Stage(f"prune on {recipe.prefix.fingerprint}", "prune", "structured", prune_s, "training"),)
        elif recipe["prune.method"] != "none":
            pruned = Recipe(recipe.settings("prune"))
            parents += (Stage(f"prune {pruned.fingerprint}", "prune", str(recipe["prune.method"]), prune_s, "training"),)
        if not recipe.is_trained:
            return Stage(f"prefix {recipe.prefix.fingerprint}", "build", "", 0.0, "training", parents)
        if recipe["distill.loss"] != "none" or recipe["curriculum.schedule"] != "none":
            parents += (self._shared("teacher"),)
        if recipe["curriculum.schedule"] != "none":
            parents += (self._shared("difficulty"),)
        epochs = int(recipe["train.epochs"])
        rungs = tuple(Rung(epoch, epochs, metric) for epoch, metric in found["rungs"])
        return Stage(
            f"prefix {recipe.prefix.fingerprint}", "train", "recorded", train_s, "training", parents,
            self._own_samples(recipe), rungs,
        )  # fmt: skip

    def lowering(self, recipe: Recipe) -> Sequence[Stage]:
        """Accuracy of the quantized graph and cost of the structure, each with the artifact that it needs."""
        found, (dtype, mode) = self.table.prefixes[recipe.prefix], recipe.lowering
        graph, method = self.table.graphs[dtype, mode], f"{dtype}/{mode}"
        scale = self.lowering_scale
        compile_s, measure_s = (scale * seconds for seconds in self.table.structure_seconds(recipe))
        quantize = tuple(
            Stage(f"{what} {recipe.prefix.fingerprint}", "quantize", what.removeprefix("quantize "), scale * seconds, "compiling")
            for what, seconds in self._quantizing(found, dtype)
        )
        convert = tuple(
            Stage(
                f"{what} {recipe.prefix.fingerprint}",
                "convert",
                what.removeprefix("convert "),
                scale * seconds,
                "compiling",
                quantize,
            )
            for what, seconds in found["seconds"].items()
            if what.startswith("convert ") and what.endswith(f"/{mode}")
        )
        artifact = Stage(f"{method} {recipe.prefix.fingerprint}", "compile", method, compile_s, "compiling", convert or quantize)
        needs_artifact = graph != self.table.graphs["fp32", "eager"]
        accuracy = Stage(
            f"accuracy {graph} {recipe.prefix.fingerprint}", "accuracy", graph, scale * found["seconds"][f"accuracy {graph}"],
            "measuring", (artifact,) if needs_artifact else (),
        )  # fmt: skip
        cost = Stage(
            f"cost {method} {found['structure']}", "cost", method, measure_s, "measuring", (artifact,), alone=True,
        )  # fmt: skip
        return accuracy, cost

    def measured(self, recipe: Recipe) -> Measured:
        """What was recorded of a recipe."""
        measured = self.table.measured(recipe)
        if measured is None:
            raise ValueError(f"{recipe} failed when it was recorded: ask `failure` first")
        return measured

    def failure(self, kind: str, recipe: Recipe) -> str | None:  # noqa: ARG002
        """What could not be made when it was recorded cannot be made here."""
        return None if self.table.measured(recipe) else "infeasible"

    def _own_samples(self, recipe: Recipe) -> int:
        """Training examples of this training alone: the table counts all that went into a model."""
        before = Recipe() if recipe.parent is None else recipe.parent
        seen: int = self.table.prefixes[recipe.prefix]["samples_seen"] - self.table.prefixes[before]["samples_seen"]
        return seen

    def _shared(self, stage: str) -> Stage:
        return Stage(stage, stage, stage, self.training_scale * self.table.document["shared_s"][stage], "training")

    def _quantizing(self, found: Mapping[str, Any], dtype: str) -> list[tuple[str, float]]:
        """The graph of the dtype where one was made, else the exported float graph."""
        own = f"quantize {dtype}" if f"quantize {dtype}" in found["seconds"] else "quantize fp32"
        return [(own, found["seconds"].get(own, 0.0))]
