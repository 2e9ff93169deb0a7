"""From a trained model to what runs it, in stages that are shared: a graph by its modes, what a mode makes of it by its dtypes."""

from __future__ import annotations

from pathlib import Path

from autocut.pipeline.samples import Samples
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Workshop
from autocut.stages import lowering
from autocut.stages.model_files import Prefix


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
        lowering.require_feasible(dtype, mode)
        workshop = self._workshop
        batch_sizes = list(workshop.task.serving_batch_sizes)
        settings = {"dtype": dtype, "mode": mode, "batch_sizes": batch_sizes}
        key = workshop.key(prefix.key, "compile", settings, method=lowering.method_versions(dtype, mode))
        # A stage of its own, made before this one begins, so that no second is counted twice.
        start = None if workshop.cache.find(key) else self._start(prefix, dtype, mode)

        def make(folder: Path) -> None:
            source = start or self._start(prefix, dtype, mode)
            with workshop.working():
                calibration = self._samples.calibration
                lowering.compile_graph(source.folder, dtype, mode, calibration, folder, batch_sizes=batch_sizes)

        return workshop.stage(key, "compile", f"{dtype}/{mode}", make, "compiling")

    def graph(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        """Return the exported graph of `prefix` from which `mode` runs `dtype`, shared by all modes that start from it."""
        graph_dtype = lowering.graph_dtype(dtype, mode)

        def make(folder: Path) -> None:
            with self._workshop.working():
                lowering.lower_graph(prefix.model, graph_dtype, self._samples.calibration, folder)

        return self._workshop.stage(self._graph_key(prefix, graph_dtype), "quantize", graph_dtype, make, "compiling")

    def _start(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        """What `mode` starts from: the graph itself, or what the mode makes of it for all dtypes of this graph."""
        return self._converted(prefix, dtype, mode) if lowering.converts(mode) else self.graph(prefix, dtype, mode)

    def _converted(self, prefix: Prefix, dtype: str, mode: str) -> Entry:
        workshop = self._workshop
        graph_dtype = lowering.graph_dtype(dtype, mode)
        parent, version = self._graph_key(prefix, graph_dtype), lowering.conversion_version(mode)
        key = workshop.key(parent, "convert", {"mode": mode}, method=version)
        graph = None if workshop.cache.find(key) else self.graph(prefix, dtype, mode)

        def make(folder: Path) -> None:
            source = graph or self.graph(prefix, dtype, mode)
            with workshop.working():
                lowering.convert_graph(source.folder, mode, folder)

        return workshop.stage(key, "convert", f"{graph_dtype}/{mode}", make, "compiling")

    def _graph_key(self, prefix: Prefix, dtype: str) -> str:
        method = lowering.method_versions(dtype, "eager")
        return self._workshop.key(prefix.key, "quantize", {"dtype": dtype}, method=method)
