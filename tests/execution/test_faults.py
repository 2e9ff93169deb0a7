"""Faults that are injected into real work: each ends its trial with the right reason, and no other.

A whole search among methods that fail is at the end; `studies/faults` lists every kind and its test.

Elsewhere: a worker that crashes, is killed or hangs (`test_fork_server`, `search/test_agent`), memory (`search/test_memory`), a
missing C++ toolchain (`stages/test_lowering`), a full disk and a damaged stage (`pipeline/test_stage_cache`), a folder that is
read-only (`study/test_opening`), a damaged database (`study/test_damage`), two searches at once (`test_two_searches`), a clock
that is set (`test_clock`).
"""

import textwrap
import time
from pathlib import Path

import pytest
from injecting import FAULTS
from injecting import search as search_among_faults

from autocut.deploy import finalize as finalize_module
from autocut.errors import CompilerError
from autocut.execution import worker as worker_module
from autocut.execution.worker import run_job
from autocut.pipeline.pipeline import Pipeline
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.search.jobs import BaselineReady, Job, JobEnded, RecipeFailed, RecipeMeasured, RecipeStarted, Setting

ORT = Recipe().with_lowering("fp32", "onnxruntime")
TRAINED = Recipe({"train.epochs": 1, "train.lr_scale": 1.0})


@pytest.fixture
def setting(small_task_file, tmp_path):
    """One search's setting, in a folder of its own."""
    return Setting(str(small_task_file), str(tmp_path / "study"), 0, 1, 10**9, Price("test", 0.1, "today"), "autocut search")


def work(setting, kind, *recipes, **more):
    """Run a job in this process; return its failures by recipe, and what it has measured."""
    events = []
    run_job(Job(1, kind, recipes, time.time() + 300, "test", **more), setting, events.append)
    failures = {event.recipe: event for event in events if isinstance(event, RecipeFailed)}
    return failures, [event.recipe for event in events if isinstance(event, RecipeMeasured)]


def test_a_loss_that_is_no_number_ends_its_trial(setting):
    """A learning rate beyond all reason; the next recipe of the job is measured."""
    wild = Recipe({"train.epochs": 1, "train.lr_scale": 1e12})
    failures, measured = work(setting, "measure", wild, ORT)

    assert failures[wild].outcome == "failed"
    assert failures[wild].reason.startswith("DivergedError: ")
    assert measured == [ORT]


def test_a_dataset_that_raises_is_told_as_the_tasks_own_fault(setting, small_task_file):
    """With the line of the task's file: it is no bug of autocut, and no method is to blame."""
    small_task_file.write_text(
        small_task_file.read_text()
        + textwrap.dedent("""
        class Broken(torch.utils.data.Dataset):
            reads = 0

            def __len__(self):
                return 700

            def __getitem__(self, index):
                Broken.reads += 1
                if Broken.reads > 5000:
                    raise OSError(f"sample {index} cannot be read")
                return images[index], labels[index]

        task = Task(
            name="small", model=Net, train=Broken(), validation=(images[700:1000], labels[700:1000]),
            test=(images[1000:1300], labels[1000:1300]), batch_size=64, epochs=4, pretrained=False,
        )
        """)
    )
    longer = Recipe({"train.epochs": 4, "train.lr_scale": 1.0})
    failures, measured = work(setting, "measure", ORT, longer)

    assert measured == [ORT]
    assert failures[longer].outcome == "failed"
    assert failures[longer].reason.startswith("the task's own code failed: OSError: sample ")
    assert failures[longer].reason.rpartition("(")[2].startswith("task.py, line ")


@pytest.mark.parametrize("error", [OSError("the connection is gone"), KeyError("nobody expects this")])
def test_no_other_recipe_runs_in_a_process_that_a_failure_may_have_harmed(setting, monkeypatch, error):
    """A dataset that has lost its connection raises from then on. What shares the training fails with it, the rest is left."""
    whole = Pipeline.prefix

    def prefix(self, recipe):
        if recipe.is_trained:
            raise error
        return whole(self, recipe)

    monkeypatch.setattr(Pipeline, "prefix", prefix)
    monkeypatch.setattr(worker_module, "_line_of_task", lambda error, _: "task.py, line 7" if isinstance(error, OSError) else None)
    also_trained = TRAINED.with_lowering("fp32", "onnxruntime")
    events = []
    run_job(Job(1, "measure", (TRAINED, ORT, also_trained), time.time() + 300, "test"), setting, events.append)
    started = [event.recipe for event in events if isinstance(event, RecipeStarted)]

    assert started == [event.recipe for event in events if isinstance(event, RecipeFailed)] == [TRAINED, also_trained]
    assert [event.leaves_rest for event in events if isinstance(event, JobEnded)] == [True]


def test_a_failure_of_a_method_leaves_the_process_whole(setting):
    """A training that diverges ends one trial, and no process: the next recipe is measured here."""
    wild = Recipe({"train.epochs": 1, "train.lr_scale": 1e12})
    events = []
    run_job(Job(1, "measure", (wild, ORT), time.time() + 300, "test"), setting, events.append)

    assert [event.recipe for event in events if isinstance(event, RecipeMeasured)] == [ORT]
    assert not events[-1].leaves_rest


def test_an_export_that_fails_ends_its_trial(setting, monkeypatch):
    """Another recipe of the same job is measured."""
    whole = Pipeline.artifact

    def artifact(self, model, dtype, mode):
        if mode == "onnxruntime":
            raise CompilerError("onnxruntime refused the model: unsupported operator")
        return whole(self, model, dtype, mode)

    monkeypatch.setattr(Pipeline, "artifact", artifact)
    other = Recipe({"prune.method": "structured", "prune.ratio": 0.5})
    failures, measured = work(setting, "measure", ORT, other)

    assert list(failures) == [ORT]
    assert "unsupported operator" in failures[ORT].reason
    assert measured == [other]


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_an_error_of_libraries_is_told_as_it_is(setting, monkeypatch, error):
    """Memory by its name; what nobody expected with its traceback, as a bug to be reported."""

    def measure(self, recipe):
        raise error

    monkeypatch.setattr(Pipeline, "measure", measure)
    failures, _ = work(setting, "measure", ORT)

    assert failures[ORT].outcome == ("failed" if isinstance(error, MemoryError) else "bug")
    assert "memory" in failures[ORT].reason or "Traceback" in failures[ORT].reason


def test_a_finalization_that_raises_ends_its_point_alone(setting, monkeypatch):
    """The export of a measured recipe may fail, too."""

    def refuse(*_):
        raise CompilerError("the exporter refused the model")

    monkeypatch.setattr(finalize_module, "_finalize", refuse)
    failures, _ = work(setting, "finalize", ORT, trials=(1,), reference=_reference(setting))

    assert failures[ORT].reason == "CompilerError: the exporter refused the model"
    assert not list((Path(setting.folder) / "bundles").glob("*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_among_methods_that_fail_records_each_and_blames_no_other(tmp_path):
    """Sixteen kinds; a method that dies three times is switched off; the budget is kept and the front verifies."""
    outcome = search_among_faults(tmp_path, budget_s=360)

    assert outcome.wrong == []
    assert set(outcome.recorded) == {fault.kind for fault in FAULTS}


def _reference(setting):
    events = []
    run_job(Job(1, "baseline", (Recipe(),), time.time() + 300, "test"), setting, events.append)
    return next(event.reference for event in events if isinstance(event, BaselineReady))
