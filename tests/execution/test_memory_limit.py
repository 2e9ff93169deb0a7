"""A worker that asks for too much memory fails by itself, with a reason; no neighbour is killed for it."""

import resource
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from autocut.execution.memory_limit import is_out_of_memory, limited_memory
from autocut.pipeline.pipeline import Pipeline
from autocut.recipe import Recipe
from autocut.search.jobs import RecipeFailed, RecipeMeasured

from .test_worker import ORT, job, run, setting  # noqa: F401 -- a fixture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit is the Linux kernel's")

LITTLE, MUCH = 300 * 2**20, 2 * 2**30


@pytest.mark.parametrize(
    "ask", [lambda: torch.ones(MUCH // 4), lambda: np.ones(MUCH // 8), lambda: bytearray(MUCH)], ids=["torch", "numpy", "python"]
)
def test_an_allocation_beyond_the_limit_fails(ask):
    """Each library says it in its own way. Afterwards the process may have as much as before."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(LITTLE), pytest.raises((MemoryError, RuntimeError)) as raised:
        ask()
    assert is_out_of_memory(raised.value)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_what_fits_is_not_kept_from_it():
    """The limit counts from what the process has already."""
    with limited_memory(LITTLE):
        assert torch.ones(LITTLE // 8).sum() == LITTLE // 8


def test_without_a_limit_of_the_users_only_the_hopeless_fails():
    """Nobody can have hundreds of terabytes."""
    with limited_memory(None):
        assert torch.ones(LITTLE // 4).sum() == LITTLE // 4
        with pytest.raises(RuntimeError, match="allocate"):
            torch.empty(2**47, dtype=torch.uint8)


def test_a_limit_that_the_system_has_set_is_kept():
    """A batch system's own limit stands; ours never raises it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(LITTLE):
        inner, _ = resource.getrlimit(resource.RLIMIT_DATA)
        with limited_memory(MUCH):
            assert resource.getrlimit(resource.RLIMIT_DATA) == (inner, hard)
    assert resource.getrlimit(resource.RLIMIT_DATA) == (soft, hard)


def test_an_error_that_a_library_wraps_is_still_out_of_memory():
    """Exporters wrap what happens inside them."""
    wrapped = ValueError("the exporter failed")
    wrapped.__cause__ = MemoryError()
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(ValueError("the exporter failed"))


def test_a_recipe_that_needs_more_than_a_worker_may_have_fails_alone(setting, monkeypatch):  # noqa: F811
    """The reason names memory and the option; the next recipe of the same worker is measured."""
    whole, greedy = Pipeline.measure, Recipe().with_lowering("int8_static", "onnxruntime")

    def measure(self, recipe):
        if recipe == greedy:
            torch.ones(MUCH // 4)
        return whole(self, recipe)

    monkeypatch.setattr(Pipeline, "measure", measure)
    events = run(job("measure", greedy, ORT), replace(setting, worker_bytes=MUCH // 2))
    failures = [event for event in events if isinstance(event, RecipeFailed)]

    assert [(failure.recipe, failure.outcome) for failure in failures] == [(greedy, "failed")]
    assert "OutOfMemoryError" in failures[0].reason
    assert "--worker-memory" in failures[0].reason
    assert [event.recipe for event in events if isinstance(event, RecipeMeasured)] == [ORT]
