"""The folder that the nodes of a cluster share: where a study keeps its stages, and how its bundles come home.

Workers keep stages in a folder, and leave bundles there. On one machine that is the study's own. With `--stages FOLDER` each study
has a folder of its own in FOLDER, which it remembers, and only its database, its notes and its bundles are in the study's folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import autocut
from autocut.config import SearchConfig
from autocut.errors import StudyError, quoted
from autocut.execution.executor import WorkerGone
from autocut.execution.node_host import NodeFindings
from autocut.execution.nodes import NodesWanted, node_needs
from autocut.execution.preflight import Preflight
from autocut.execution.worker_pool import WorkerPool
from autocut.measure.machine import machine_fingerprint
from autocut.score import parse_limit
from autocut.search.jobs import Event, RecipeFinalized
from autocut.study import Study, stored_facts

_ROOT = "stages_root"


def stages_fact(folder: Path, task_name: str, config: SearchConfig) -> Mapping[str, str]:
    """Return the fact about where a study keeps its stages, for a new study decide it. Without `--stages` there is none.

    Raises:
        StudyError: the study was begun with another folder.
    """
    asked = config.stages_path
    if asked is None:
        return {}
    known = stored_facts(folder, task_name, config.storage)
    if known is None:
        root = asked / f"{task_name}-{uuid4().hex[:8]}"
        try:
            root.mkdir(parents=True)
        except OSError as error:
            message = f"--stages must be a folder that can be written, got {quoted(str(config.stages))}: {error.strerror}"
            raise StudyError(message, "choose another folder") from error
        return {_ROOT: str(root)}
    root = Path(known.get(_ROOT) or folder.resolve())
    if root.parent != asked:
        raise StudyError(f"study {folder} keeps its stages in {root}, got --stages {config.stages}", "leave --stages out")
    return {_ROOT: str(root)}


def open_nodes(pool: WorkerPool, study: Study, found: Preflight, config: SearchConfig) -> list[str]:
    """Look at the nodes of the cluster, and have them run the jobs of `study`. Return lines for the user.

    Raises:
        InputError: what the nodes lack.
    """
    reference = study.reference
    here = NodeFindings(
        machine_fingerprint(),
        found.task.fingerprint,
        compiler=found.missing_compiler,
        libraries={**found.stage_libraries, "autocut": autocut.__version__},
    )
    needs = node_needs(found.task.data_hash, study.stages_root.resolve())
    known_kind = None if reference is None else reference.machine
    compared = {*study.objectives, *(parse_limit(text).name for text in config.limits)}
    return pool.open_nodes(NodesWanted(needs, here, config.measure_on, known_kind, compares_training="train_usd" in compared))


def brought_home(event: Event | WorkerGone, study_folder: Path) -> Event | WorkerGone:
    """Move the bundle of a finalized recipe into the study's folder, if a worker has left it elsewhere.

    It appears there whole, or not at all.
    """
    if not isinstance(event, RecipeFinalized) or event.bundle is None:
        return event
    made, home = Path(event.bundle), study_folder.resolve() / "bundles"
    if made.parent == home:
        return event
    draft, bundle = home / f".{made.name}.{uuid4().hex}", home / made.name
    shutil.copytree(made, draft)
    shutil.rmtree(bundle, ignore_errors=True)
    draft.rename(bundle)
    shutil.rmtree(made, ignore_errors=True)
    return replace(event, bundle=str(bundle))
