"""A pipeline whose timings no neighbour of the tests disturbs."""

import dataclasses
import math

import pytest

from autocut import measurement
from autocut.measure import disturbance
from autocut.measure.quiet import QuietLock
from autocut.measurement import Rung
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.search.jobs import StageRan
from autocut.task.loading import load_task


@pytest.fixture(autouse=True)
def _calm(monkeypatch):
    """Other programs on the test machine would have costs timed again."""
    for module in (measurement, disturbance):
        monkeypatch.setattr(module, "UNDISTURBED", math.inf)


@pytest.fixture
def make_pipeline(small_task_file, tmp_path):
    """Pipelines that share one cache, as workers do; `made` lists the stages that were not found."""

    def make(on_rung=lambda rung: None, **changes):
        made = []

        def report(event):
            if isinstance(event, Rung):
                on_rung(event)
            elif isinstance(event, StageRan) and not event.cached:
                made.append(event.stage)

        context = StageContext(load_task(small_task_file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"))
        return Pipeline(dataclasses.replace(context, **changes), report), made

    return make
