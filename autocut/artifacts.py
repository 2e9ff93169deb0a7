"""From a trained model to what runs it: the graph that several modes share, and what each mode makes of it."""

from __future__ import annotations

from pathlib import Path

from autocut.samples import Samples
from autocut.stage_cache import Entry
from autocut.stages import lowering
from autocut.stages.model_files import Prefix
from autocut.workshop import Workshop


class Artifacts:
    """Lowers models in `workshop`."""

    def __init__(self, workshop: Workshop, samples: Samples) -> None:
        self._workshop = workshop
        self._samples = samples

    def artifact(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        """Return the saved, runnable form of `prefix` in `dtype` under `mode`.

        Raises:
            TrialError: the pair cannot be real on this machine or with this model, or a compiler refused the model.
        """
        workshop = self._workshop
        batch_sizes = list(workshop.task.serving_batch_sizes)
        settings = {"dtype": dtype, "mode": mode, "batch_sizes": batch_sizes}
        key = workshop.key(prefix.key, "compile", settings, method=lowering.method_versions(dtype, mode))
        # A stage of its own, made before this one begins, so that no second is counted twice.
        graph = None if workshop.cache.find(key) or lowering.infeasible_reason(dtype, mode) else self.graph(prefix, dtype, mode)

        def make(folder: Path) -> None:
            with workshop.working():
                lowering.lower(
                    prefix.model,
                    dtype,
                    mode,
                    self._samples.calibration,
                    folder,
                    batch_sizes=batch_sizes,
                    graph=graph.folder if graph else None,
                )

        return workshop.stage(key, "compile", f"{dtype}/{mode}", make, "compiling")

    def graph(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        """Return the exported graph of `prefix` from which `mode` runs `dtype`, shared by all modes that start from it."""
        graph_dtype = lowering.graph_dtype(dtype, mode)
        method = lowering.method_versions(graph_dtype, "eager")
        key = self._workshop.key(prefix.key, "quantize", {"dtype": graph_dtype}, method=method)

        def make(folder: Path) -> None:
            with self._workshop.working():
                lowering.lower_graph(prefix.model, graph_dtype, self._samples.calibration, folder)

        return self._workshop.stage(key, "quantize", graph_dtype, make, "compiling")
