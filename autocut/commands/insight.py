"""`autocut check`, `methods`, `ledger`, `dashboard` and `schema`: look at a task, at autocut itself, at a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocut.budget import format_duration
from autocut.commands.front import STUDY
from autocut.commands.verb import JSON, verb
from autocut.console import Console
from autocut.counting import format_count
from autocut.errors import ExitCode, FaultsError

if TYPE_CHECKING:
    from autocut.stages.methods import MethodRow, PairRow

_BAR_WIDTH = 40
_WORK = {
    "starting": "checking the task, starting Ray, until the first job",
    "training": "training models, the untouched one too",
    "compiling": "quantizing, exporting, compiling, loading",
    "measuring": "scoring and timing",
    "finalizing": "a finalization from its process's start to its end, but for its waiting",
    "waiting": "until the machine is quiet, or until another worker has made the same stage",
    "idle": "no job for the worker",
    "overhead": "starting processes, between two jobs, the end of the search",
    "killed": "work that was lost because its process was killed",
}
"""What each category of the ledger is; the help of `ledger` has the same words."""


@verb("check", "Find every fault of a task at once.", "autocut check task.py", "autocut check", "autocut check task.py --json")
@click.argument("task", required=False, metavar="[TASK]")
@JSON
@click.pass_obj
def check(console: Console, task: str | None, as_json: bool) -> int:
    """Find every fault of TASK at once, each with a hint. Without TASK, the embedded digits task is checked."""
    from autocut.task.check import check_task, notes_of

    name = task or "embedded digits task"
    with console.busy(f"checking {name}"):
        faults = check_task(task)
        notes = [] if faults else notes_of(task)
    if as_json:
        from autocut.schemas.document import FaultPart
        from autocut.schemas.tasks import CheckDocument

        parts = tuple(map(FaultPart.of, faults))
        console.document(CheckDocument(task=task, ok=not faults, faults=parts, notes=tuple(notes)).plain())
        return ExitCode.BAD_INPUT if faults else ExitCode.DONE
    if faults:
        raise FaultsError(name, faults)
    for note in notes:
        console.info(note)
    console.data(f"{name}: no faults")
    return ExitCode.DONE


@verb("methods", "List every method, and what runs here.", "autocut methods", "autocut methods --json")
@JSON
@click.pass_obj
def methods(console: Console, as_json: bool) -> int:
    """List every method of every axis, its packages, and the methods that this machine can run."""
    from autocut.stages.methods import method_rows, pair_rows

    rows, pairs, on_gpu = method_rows(), pair_rows(), pair_rows("cuda")
    if as_json:
        listed = [{**asdict(row), "available": not row.missing} for row in rows]
        feasible = [{**asdict(pair), "feasible": pair.reason is None} for pair in (*pairs, *on_gpu)]
        console.document({"schema_version": 1, "methods": listed, "pairs": feasible})
        return ExitCode.DONE
    for axis in dict.fromkeys(row.axis for row in rows):
        console.table([axis, "what it does"], [(row.name, _summary(row)) for row in rows if row.axis == axis])
        console.data("")
    console.data("A dtype is real only together with a compile mode. On this machine's CPU:\n")
    _print_pairs(pairs, console)
    console.data("\nOn its GPU, with --serve-on cuda:\n")
    _print_pairs(on_gpu, console)
    return ExitCode.DONE


@verb("ledger", "Show where the time of a study went.", "autocut ledger studies/digits", "autocut ledger studies/digits --json")
@STUDY
@JSON
@click.pass_obj
def ledger(console: Console, study: Path, as_json: bool) -> int:
    """Show where the time of STUDY went: seconds of the budget by category, over all its runs.

    The rows add up to the time spent. At every moment each of the workers counts its share in one row:

    \b
    starting    checking the task, starting Ray, until the first job
    training    training models, the untouched one too
    compiling   quantizing, exporting, compiling, loading
    measuring   scoring and timing
    finalizing  a finalization from its process's start to its end, but for its waiting
    waiting     until the machine is quiet, or until another worker has made the same stage
    idle        no job for the worker
    overhead    starting processes, between two jobs, the end of the search
    killed      work that was lost because its process was killed

    "cores busy" is the share of all but starting, waiting and idle. A training that borrowed the core of a worker without work
    counts there too.
    """  # noqa: D301 -- click reads the character itself
    from autocut.study import open_study

    opened = open_study(study)
    document = opened.ledger()
    if as_json:
        console.document({"schema_version": 1, "study": opened.name, **document})
        return ExitCode.DONE
    seconds = {name: spent for name, spent in document["by_category"].items() if spent > 0}
    total, runs = sum(seconds.values()), document["sessions"]
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    rows = [(f"{spent:.1f}", f"{spent / total:.0%}", _bar(spent / total), name, _WORK.get(name, "")) for name, spent in ordered]
    console.table(["seconds", "share", "", "category", "what it is"], rows)
    console.data(f"\nbudget spent: {format_duration(document['spent_s'])} in {format_count(len(runs), 'run')}")
    if document["cores_busy"] is not None:
        console.data(f"cores busy: {document['cores_busy']:.0%}")
    elif total > 0:
        console.data("cores busy: not known, because an earlier version of autocut did not record idle workers")
    return ExitCode.DONE


@verb(
    "dashboard",
    "Serve optuna-dashboard for a study.",
    "autocut dashboard studies/digits",
    "autocut dashboard studies/digits --port 9000",
    "autocut dashboard studies/digits --port 0 --json",
)
@STUDY
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port on 127.0.0.1; 0 takes a free one.")  # fmt: skip
@JSON
@click.pass_obj
def dashboard(console: Console, study: Path, port: int, as_json: bool) -> int:
    """Serve optuna-dashboard for STUDY on 127.0.0.1 until Ctrl-C, and print its address."""
    from autocut.report.dashboard import serve

    def announce(address: str) -> None:
        from autocut.schemas.studies import DashboardDocument

        console.document(DashboardDocument(study=str(study), address=address).plain())

    serve(study, port, announce if as_json else console.data)
    return ExitCode.DONE


@verb("schema", "Print the JSON schema of a verb's document.", "autocut schema front", "autocut schema error")
@click.argument("document", metavar="DOCUMENT")
@click.pass_obj
def schema(console: Console, document: str) -> int:
    """Print the JSON schema (draft 2020-12) of what a verb prints with --json.

    DOCUMENT is the name of the verb; dry-run is for search --dry-run, and error for every verb that fails.
    """
    from autocut.schemas import schema as schema_of

    console.document(schema_of(document))
    return ExitCode.DONE


def _bar(share: float) -> str:
    """Return a bar as long as its share, at least one mark."""
    return "#" * max(1, round(share * _BAR_WIDTH))


def _summary(row: MethodRow) -> str:
    needs = f" Needs {', '.join(row.requires)}" if row.requires else ""
    missing = f" (not installed: pip install {' '.join(row.missing)})" if row.missing else ""
    return f"{row.summary}{needs}{missing}"


def _print_pairs(pairs: Sequence[PairRow], console: Console) -> None:
    """Print dtypes and modes as a matrix; each distinct reason has a number and is listed below."""
    modes = list(dict.fromkeys(pair.mode for pair in pairs))
    reasons = list(dict.fromkeys(pair.reason for pair in pairs if pair.reason))
    cells = {(pair.dtype, pair.mode): f"no ({reasons.index(pair.reason) + 1})" if pair.reason else "yes" for pair in pairs}
    dtypes = list(dict.fromkeys(pair.dtype for pair in pairs))
    console.table(["mode", *dtypes], [(mode, *(cells[dtype, mode] for dtype in dtypes)) for mode in modes])
    if reasons:
        console.data("")
        console.table(["no", "why not"], enumerate(reasons, start=1))
