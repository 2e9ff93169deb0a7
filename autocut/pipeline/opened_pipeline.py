"""Opens the pipeline of a finished study, as its search has set it: the same task, stages, threads and seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch

from autocut.errors import StudyError, quoted
from autocut.measure.quiet import QuietLock
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.signing import refuse_foreign_task
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import EventSink, StageContext
from autocut.score import allowed_drop
from autocut.search.jobs import ScoringPlan
from autocut.stages.libraries import library_versions, mode_libraries
from autocut.stages.train import CPU, Device
from autocut.study import Study, TrialRecord
from autocut.study.versions import check_libraries
from autocut.task.data_identity import identify_as_begun
from autocut.task.loading import load_task


def open_pipeline(
    study: Study,
    trials: Iterable[TrialRecord],
    report: EventSink = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Pipeline:
    """Load the task of `study`, and return a pipeline that finds the stages of its search.

    Nothing is evicted from these stages. `trials` are those whose models will be worked with. `report` and `stop` are those of
    `Pipeline` and `StageContext`.

    Raises:
        InputError: this machine has no such device as served the models.
        StudyError: the study has no measured baseline, other library versions made its stages, or the task has changed.
    """
    facts = study.facts
    if study.reference is None:
        raise StudyError(f"study {study.folder} must have a measured baseline, but has none", "search it a little longer")
    if missing := [name for name in ("task_path", "threads", "price") if name not in facts]:
        raise StudyError(f"study {study.folder} must say its {missing[0]}, but does not", "search it a little longer")
    check_libraries(study, library_versions(), mode_libraries(), trials, "or search again with --out")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(study.stages_dir / "inductor"))
    torch.set_num_threads(1)  # as wherever a task is loaded: the last bits of what it computes may depend on it
    refuse_foreign_task(facts, study.task_fingerprint, study.folder)
    task = load_task(facts["task_path"])
    data = identify_as_begun(task, study.folder, facts)
    task.know_data("" if data is None else data.digest)
    if task.fingerprint != study.task_fingerprint:
        raise StudyError(
            f"study {study.folder} was made for another version of task {quoted(task.name)}",
            "restore the task, or search again with --out",
        )
    # The number of threads is part of what ahead-of-time code is compiled for, and of every claim.
    torch.set_num_threads(int(facts["threads"]))
    context = StageContext(
        task,
        StageCache(study.stages_dir, sys.maxsize),
        QuietLock(),
        seed=study.seed,
        threads=int(facts["threads"]),
        stop=stop,
        untouched_epochs=facts.get("untouched_epochs"),
        scoring=ScoringPlan(**facts["scoring"]) if "scoring" in facts else None,
        max_drop=_max_drop(facts),
        device=Device(
            facts.get("train_on", CPU.kind),
            facts.get("train_precision", CPU.precision),
            facts.get("train_memory_format", CPU.memory_format),
        ),
        served_on=Device(facts.get("serve_on", CPU.kind)),
    )
    context.served_on.open(serves=True)
    return Pipeline(context, report)


def _max_drop(facts: dict[str, Any]) -> float | None:
    """Return the drop beyond which the search scored no further: it is part of the key of slow scorings."""
    share, baseline = facts.get("max_accuracy_drop"), facts.get("baseline")
    return None if share is None or baseline is None else allowed_drop(share, baseline["value"])
