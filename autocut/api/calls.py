"""The calls of `autocut.api` that compute: each runs a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from autocut.api.command import Amount, duration, flags, run
from autocut.api.opened_study import OpenedStudy, open_study
from autocut.api.task_source import task_file
from autocut.errors import Fault
from autocut.precision import AskedPrecision

if TYPE_CHECKING:
    from autocut.schemas.attribution import CompareDocument, RemeasureDocument
    from autocut.schemas.bundles import VerifyDocument
    from autocut.task.task import Task


class SearchOptions(TypedDict, total=False):
    """Options of `search`, as the flags of `autocut search` of the same names, which `autocut search --help` describes.

    `max_accuracy_drop` is a number of points: 0.01 is one percentage point of a metric between 0 and 1. `price_per_hour` is in US
    dollars, `grid_intensity` in grams of CO2 per kWh. `cache_size` and `worker_memory` are in bytes.
    """

    space: str
    out: str | Path
    storage: str
    ray_address: str
    stages: str | Path
    measure_on: str
    workers: int
    threads: int
    train_on: Literal["cpu", "cuda", "auto"]
    train_precision: AskedPrecision
    serve_on: Literal["cpu", "cuda"]
    sampler: str
    seed: int
    instance: str
    price_per_hour: float
    utilization: float
    requests_per_month: float
    grid_intensity: float
    limit: Sequence[str]
    max_accuracy_drop: Amount
    learn_from: str | Path
    cache_size: Amount
    worker_memory: Amount
    examples: bool
    rehash: bool
    adopt_stages: bool


def search(
    task: Task | str | Path | None = None, *, budget: Amount, quiet: bool = False, **options: Unpack[SearchOptions]
) -> OpenedStudy:
    """Search for cheaper models of `task` until the budget is spent, and return the study.

    The same call again resumes the study; a longer budget extends it. Ctrl-C keeps what is finished. If no bundle could be verified
    in time, the study is returned with an empty front.

    Args:
        task: Path of a task.py; a `Task` that a file defines under the name ``task``; None for the embedded digits task. Worker
            processes load the file, so a `Task` of a notebook cell or of a function is refused. A script that defines its task and
            searches it must search below ``if __name__ == "__main__":``.
        budget: Wall-clock time for everything: "8h", "30m", or seconds.
        quiet: Whether to keep the progress off stderr.
        **options: See `SearchOptions`.

    Raises:
        InputError: Task, space, study or an option cannot be used; nothing was changed.
        KeyboardInterrupt: The search was interrupted; the same call resumes it.
    """
    path = task_file(task)
    words = ["search", *([] if path is None else [str(path)]), *flags({"budget": duration(budget), **options})]
    return open_study(run(words, quiet=quiet, may_lack_a_result=True)["folder"])


def check(task: Task | str | Path | None = None) -> list[Fault]:
    """Return every fault of a task, each with a hint; an empty list for a good one. It takes seconds and trains nothing.

    Args:
        task: As for `search`.

    Raises:
        TaskError: `task` is a `Task` that no file defines.
    """
    path = task_file(task)
    found = run(["check", *([] if path is None else [str(path)])], quiet=True, may_have_faults=True)
    return [Fault(fault["message"], fault["hint"], fault["where"]) for fault in found["faults"]]


def verify(bundle: str | Path, *, quiet: bool = False) -> VerifyDocument:
    """Prove a bundle's claims in a fresh process: hashes, outputs, accuracy, latency and size.

    Returns:
        The claims with what was found; `ok` says whether all hold. A false claim raises nothing.

    Raises:
        BundleError: The folder is no readable bundle.
        VerificationError: A file differs from the one that the manifest names.
    """
    from autocut.schemas.bundles import VerifyDocument

    return VerifyDocument.model_validate(run(["verify", str(bundle)], quiet=quiet, may_lack_a_result=True))


def remeasure(
    target: str | Path,
    *,
    threads: int | None = None,
    instance: str | None = None,
    price_per_hour: float | None = None,
    quiet: bool = False,
) -> RemeasureDocument:
    """Measure a bundle, or every verified bundle of a study, on this machine, and return the claims beside what was found.

    Args:
        target: Folder of a bundle or of a study. A study keeps what was found.
        threads: Threads of a call; None: as each bundle was measured.
        instance: Instance of the price sheet whose price this machine has.
        price_per_hour: US dollars per hour of this machine.
        quiet: Whether to keep what is being done off stderr.

    Raises:
        BundleError, StudyError: The folder is neither.
        NoResultError: The study has no verified bundle. A bundle that does not run raises nothing: it has a `failure`.
    """
    from autocut.schemas.attribution import RemeasureDocument

    options = flags({"threads": threads, "instance": instance, "price_per_hour": price_per_hour})
    return RemeasureDocument.model_validate(run(["remeasure", str(target), *options], quiet=quiet, may_lack_a_result=True))


def compare(a: str | Path, b: str | Path, *, threads: int | None = None, quiet: bool = False) -> CompareDocument:
    """Compare two bundles, which are measured by turns now, or two studies, by what they have measured.

    Raises:
        InputError: One is a bundle and the other a study, or two bundles take other inputs.
        NoResultError: A bundle does not run here.
    """
    from autocut.schemas.attribution import CompareDocument

    return CompareDocument.model_validate(run(["compare", str(a), str(b), *flags({"threads": threads})], quiet=quiet))
